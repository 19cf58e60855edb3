"""The twin: ShopCat on one machine. It plays the AWS account, for rehearsals and proofs.

Nothing in ``infra/`` imports this package or knows of it. `make up` starts the parts that parts.py lists. A package imports
only those below it (a contract in pyproject.toml):

==============  =====================================================================================================
cli             the commands of ``python -m twin``
scenarios       what is done with the twin: production, previews, the pipeline's scripts and their times, GitHub's API
parts           the order in which parts start and stop
aws             moto and what it lacks: EKS, IAM for the cluster, ECR, RDS with a real PostgreSQL, the account's contents
pulumi          the real Pulumi engine: home, settings, environment
plugins         the provider plugins aws and eks, which the engine starts
kubernetes      control plane, real and simulated nodes, EKS add-ons, Helm charts
loadbalancer    the Application Load Balancer (HAProxy), its controller, and the names that lead to it
images          container images: built with buildah, pushed to the registry
build           programs and image layers, built once into a cache
host            network, cgroups, processes, ports, DNS, certificates; all of it is undone by `make down`
config          one twin's name, folders, addresses and ports
paths, errors   where things are on the machine; the one error that a person can mend
==============  =====================================================================================================
"""
