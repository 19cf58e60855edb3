terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.0"
    }
  }
}

variable "region" {
  type    = string
  default = "eu-central-1"
}

provider "aws" {
  region = var.region
}

module "vpc" {
  source  = "terraform-aws-modules/vpc/aws"
  version = "5.8.1"

  name             = "shop"
  cidr             = "10.20.0.0/16"
  azs              = ["${var.region}a", "${var.region}b", "${var.region}c"]
  private_subnets  = ["10.20.0.0/20", "10.20.16.0/20", "10.20.32.0/20"]
  public_subnets   = ["10.20.100.0/24", "10.20.101.0/24", "10.20.102.0/24"]
  database_subnets = ["10.20.200.0/24", "10.20.201.0/24", "10.20.202.0/24"]

  enable_nat_gateway = true
  single_nat_gateway = true

  public_subnet_tags  = { "kubernetes.io/role/elb" = "1" }
  private_subnet_tags = { "kubernetes.io/role/internal-elb" = "1" }
}

module "eks" {
  source  = "terraform-aws-modules/eks/aws"
  version = "20.8.5"

  cluster_name    = "shop-production"
  cluster_version = "1.29"
  vpc_id          = module.vpc.vpc_id
  subnet_ids      = module.vpc.private_subnets

  cluster_endpoint_public_access           = true
  enable_cluster_creator_admin_permissions = true

  cluster_addons = {
    coredns    = {}
    kube-proxy = {}
    vpc-cni    = {}
  }

  eks_managed_node_groups = {
    workers = {
      instance_types = ["t3.large"]
      min_size       = 2
      max_size       = 3
      desired_size   = 2
    }
  }
}

resource "aws_ecr_repository" "shopcat" {
  name                 = "shop/shopcat"
  image_tag_mutability = "MUTABLE"
}
