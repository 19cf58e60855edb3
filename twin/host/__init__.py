"""What a twin uses of its machine: network, cgroups, processes, ports, DNS, certificates; all of it is undone by `make down`."""
