"""How many requests fail at a release: load, releases, and what the clients, the load balancer and the database saw."""
