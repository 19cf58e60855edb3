"""Stand-in of the pulumi-aws plugin."""
