"""Stand-in of the pulumi-eks plugin: the component `eks:index:Cluster`.

It declares the AWS resources that upstream's component declares for these inputs (control-plane role and its policies, the
cluster, access entries) through the aws provider it is given, and hands back the same outputs. Upstream:
pulumi/pulumi-eks nodejs/eks/cluster/cluster.ts (createCore). Inputs it doesn't implement are refused by name.
"""
