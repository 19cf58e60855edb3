"""A real Kubernetes, as EKS has it: control plane, two nodes (simulated ones without root), add-ons, Helm charts."""
