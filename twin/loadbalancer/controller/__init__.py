"""Stand-in for the AWS Load Balancer Controller v3.5.0, for TargetGroupBindings and plain Ingresses with ip targets.

It behaves as the real one was measured: targets follow EndpointSlices (deregister first, register second); readiness
gates are latches, read by requeue steps, and lie True once a binding is deleted; AWS errors are retried in silence by
the SDK; a checkpoint on the binding makes it skip what it believes done. Of Ingress it plays what `ingress_model` builds and
refuses the rest by name. Service and Gateway resources are not watched.

The package imports nothing else of the twin: it runs alone in its image.
"""
