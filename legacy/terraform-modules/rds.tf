variable "database_password" {
  type      = string
  sensitive = true
}

resource "aws_security_group" "database" {
  name   = "shop-database"
  vpc_id = module.vpc.vpc_id

  ingress {
    from_port       = 5432
    to_port         = 5432
    protocol        = "tcp"
    security_groups = [module.eks.node_security_group_id]
  }
}

module "rds" {
  source  = "terraform-aws-modules/rds/aws"
  version = "6.6.0"

  identifier           = "shop-db"
  engine               = "postgres"
  engine_version       = "15"
  family               = "postgres15"
  major_engine_version = "15"
  instance_class       = "db.t3.small"
  allocated_storage    = 50
  storage_type         = "gp2"
  storage_encrypted    = false

  db_name  = "shop"
  username = "shop"
  password = var.database_password
  port     = 5432

  manage_master_user_password = false

  db_subnet_group_name   = module.vpc.database_subnet_group_name
  vpc_security_group_ids = [aws_security_group.database.id]

  skip_final_snapshot = true
}
