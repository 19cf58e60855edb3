output "cluster_name" {
  value = aws_eks_cluster.shopcat.name
}

output "repository_url" {
  value = aws_ecr_repository.shopcat.repository_url
}

output "database_host" {
  value = aws_db_instance.shopcat.address
}
