"""Clients of AWS, Kubernetes and Pulumi's engine."""
