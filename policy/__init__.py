"""Rules about what no stack of this project may declare, whatever its settings."""
