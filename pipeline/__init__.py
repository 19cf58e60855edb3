"""Commands that the workflows in .github/workflows run, and that run anywhere else too: `python -m pipeline --help`.

Environment variables name GitHub, AWS and the builder (pipeline/environment.py); the twin sets others.
"""
