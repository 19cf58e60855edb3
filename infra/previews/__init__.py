"""A preview per pull request: what it declares, what it may be, and the slots that limit how many there are."""
