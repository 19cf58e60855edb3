"""The twin's programs and its images' layers, built once into the machine's cache."""
