"""A real Kubernetes: control plane, two nodes (with root) or two simulated ones, and what EKS puts into a cluster."""
