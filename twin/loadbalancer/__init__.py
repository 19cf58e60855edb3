"""The AWS load balancer played on one machine, and its Kubernetes controller.

``python -m twin.loadbalancer`` is the data plane: HAProxy processes driven by what moto's ELBv2 says.
``python -m twin.loadbalancer.controller`` stands in for the AWS Load Balancer Controller, as real pods.
"""
