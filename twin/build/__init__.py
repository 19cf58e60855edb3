"""Programs and image layers, built once into a cache that all twins of the machine share."""
