terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.0"
    }
  }
}

provider "aws" {
  region = var.region
}

module "vpc" {
  source  = "terraform-aws-modules/vpc/aws"
  version = "5.8.1"

  name               = "shopcat"
  cidr               = "10.0.0.0/16"
  azs                = ["${var.region}a", "${var.region}b"]
  private_subnets    = ["10.0.0.0/19", "10.0.32.0/19"]
  public_subnets     = ["10.0.64.0/24", "10.0.65.0/24"]
  enable_nat_gateway = true
  single_nat_gateway = true
}

module "eks" {
  source  = "terraform-aws-modules/eks/aws"
  version = "20.8.5"

  cluster_name    = "shopcat"
  cluster_version = "1.29"
  vpc_id          = module.vpc.vpc_id
  subnet_ids      = module.vpc.private_subnets

  eks_managed_node_groups = {
    nodes = {
      instance_types = ["t3.medium"]
      min_size       = 2
      max_size       = 2
      desired_size   = 2
    }
  }
}

resource "aws_ecr_repository" "shopcat" {
  name                 = "shopcat"
  image_tag_mutability = "MUTABLE"
}

resource "aws_lb" "shopcat" {
  name            = "shopcat-legacy"
  subnets         = module.vpc.public_subnets
  security_groups = [aws_security_group.shopcat.id]
}

resource "aws_security_group" "shopcat" {
  name   = "shopcat-legacy"
  vpc_id = module.vpc.vpc_id

  ingress {
    from_port   = 80
    to_port     = 80
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
  }

  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_lb_target_group" "shopcat" {
  name        = "shopcat-legacy"
  port        = 8080
  protocol    = "HTTP"
  target_type = "ip"
  vpc_id      = module.vpc.vpc_id

  health_check {
    path = "/healthz"
  }
}

resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.shopcat.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.shopcat.arn
  }
}

resource "aws_db_subnet_group" "shopcat" {
  name       = "shopcat"
  subnet_ids = module.vpc.private_subnets
}

resource "aws_db_instance" "shopcat" {
  identifier           = "shopcat"
  engine               = "postgres"
  instance_class       = "db.t4g.micro"
  allocated_storage    = 20
  db_name              = "shopcat"
  username             = "shopcat"
  password             = var.database_password
  db_subnet_group_name = aws_db_subnet_group.shopcat.name
  skip_final_snapshot  = true
}
