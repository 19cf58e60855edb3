"""Stand-in of the pulumi-kubernetes plugin."""
