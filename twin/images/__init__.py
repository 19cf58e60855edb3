"""Container images, without a Docker engine: Dockerfiles built with buildah, images pushed to the twin's registry."""
