"""Programs that people run: `python -m infra.commands.<name>`."""
