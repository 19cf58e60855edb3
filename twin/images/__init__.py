"""Container images on the twin's registry, without a Docker engine."""
