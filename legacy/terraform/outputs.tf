output "target_group_arn" {
  value = aws_lb_target_group.shopcat.arn
}

output "database_host" {
  value = aws_db_instance.shopcat.address
}
