"""AWS's APIs: moto, and what it lacks: EKS, IAM for the cluster, ECR, RDS with a real PostgreSQL, the account's contents."""
