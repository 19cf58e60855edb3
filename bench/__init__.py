"""Requests that fail at a release: load, releases, and the records of clients, load balancer and database."""
