"""What the twin needs of its machine: a network, cgroups, processes, ports, names and certificates, and their end."""
