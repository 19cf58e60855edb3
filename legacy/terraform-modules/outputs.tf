output "cluster_name" {
  value = module.eks.cluster_name
}

output "repository_url" {
  value = aws_ecr_repository.shopcat.repository_url
}

output "database_host" {
  value = module.rds.db_instance_address
}
