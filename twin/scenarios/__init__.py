"""Scenarios on the twin: production, previews, the pipeline's scripts and their times, GitHub's API."""
