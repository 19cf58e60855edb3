"""The twin's use of its machine: network, cgroups, processes, ports, DNS, certificates; `make down` undoes all of it."""
