"""Clients of AWS and Kubernetes."""
