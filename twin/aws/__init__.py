"""AWS as the twin plays it."""
