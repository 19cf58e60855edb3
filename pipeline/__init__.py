"""What the workflows in .github/workflows call, and what runs just as well anywhere else: `python -m pipeline --help`.

GitHub, AWS and the builder are found in the environment (pipeline/surroundings.py); the twin gives others of each.
"""
