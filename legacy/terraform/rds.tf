variable "database_password" {
  type      = string
  sensitive = true
}

resource "aws_db_subnet_group" "shopcat" {
  name       = "shopcat"
  subnet_ids = aws_subnet.private[*].id
}

resource "aws_security_group" "database" {
  name   = "shopcat-database"
  vpc_id = aws_vpc.shopcat.id

  ingress {
    from_port       = 5432
    to_port         = 5432
    protocol        = "tcp"
    security_groups = [aws_eks_cluster.shopcat.vpc_config[0].cluster_security_group_id]
  }
}

resource "aws_db_instance" "shopcat" {
  identifier             = "shopcat"
  engine                 = "postgres"
  engine_version         = "15"
  instance_class         = "db.t4g.micro"
  allocated_storage      = 20
  storage_type           = "gp2"
  db_name                = "shopcat"
  username               = "shopcat"
  password               = var.database_password
  db_subnet_group_name   = aws_db_subnet_group.shopcat.name
  vpc_security_group_ids = [aws_security_group.database.id]
  skip_final_snapshot    = true
}
