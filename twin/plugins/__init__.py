"""Stand-ins for the provider plugins."""
