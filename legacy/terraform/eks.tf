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

locals {
  zones = ["${var.region}a", "${var.region}b"]
}

resource "aws_vpc" "shopcat" {
  cidr_block           = "10.0.0.0/16"
  enable_dns_hostnames = true

  tags = { Name = "shopcat" }
}

resource "aws_internet_gateway" "shopcat" {
  vpc_id = aws_vpc.shopcat.id

  tags = { Name = "shopcat" }
}

resource "aws_subnet" "public" {
  count = 2

  vpc_id            = aws_vpc.shopcat.id
  availability_zone = local.zones[count.index]
  cidr_block        = "10.0.${64 + count.index}.0/24"

  tags = {
    Name                     = "shopcat-public-${count.index}"
    "kubernetes.io/role/elb" = "1"
  }
}

resource "aws_subnet" "private" {
  count = 2

  vpc_id            = aws_vpc.shopcat.id
  availability_zone = local.zones[count.index]
  cidr_block        = "10.0.${32 * count.index}.0/19"

  tags = {
    Name                              = "shopcat-private-${count.index}"
    "kubernetes.io/role/internal-elb" = "1"
  }
}

resource "aws_eip" "nat" {
  domain = "vpc"

  tags = { Name = "shopcat-nat" }
}

resource "aws_nat_gateway" "shopcat" {
  allocation_id = aws_eip.nat.id
  subnet_id     = aws_subnet.public[0].id

  tags = { Name = "shopcat" }

  depends_on = [aws_internet_gateway.shopcat]
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.shopcat.id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.shopcat.id
  }

  tags = { Name = "shopcat-public" }
}

resource "aws_route_table" "private" {
  vpc_id = aws_vpc.shopcat.id

  route {
    cidr_block     = "0.0.0.0/0"
    nat_gateway_id = aws_nat_gateway.shopcat.id
  }

  tags = { Name = "shopcat-private" }
}

resource "aws_route_table_association" "public" {
  count = 2

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table_association" "private" {
  count = 2

  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private.id
}

resource "aws_iam_role" "cluster" {
  name = "shopcat-cluster"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "eks.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
}

resource "aws_eks_cluster" "shopcat" {
  name     = "shopcat"
  version  = "1.29"
  role_arn = aws_iam_role.cluster.arn

  vpc_config {
    subnet_ids = concat(aws_subnet.public[*].id, aws_subnet.private[*].id)
  }

  depends_on = [aws_iam_role_policy_attachment.cluster]
}

# For the load balancer controller's service account, whose role was made by hand.
resource "aws_iam_openid_connect_provider" "shopcat" {
  url             = aws_eks_cluster.shopcat.identity[0].oidc[0].issuer
  client_id_list  = ["sts.amazonaws.com"]
  thumbprint_list = ["9e99a48a9960b14926bb7f3b02e22da2b0ab7280"]
}

resource "aws_iam_role" "nodes" {
  name = "shopcat-nodes"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "nodes" {
  for_each = toset([
    "AmazonEKSWorkerNodePolicy",
    "AmazonEKS_CNI_Policy",
    "AmazonEC2ContainerRegistryReadOnly",
  ])

  role       = aws_iam_role.nodes.name
  policy_arn = "arn:aws:iam::aws:policy/${each.key}"
}

resource "aws_eks_node_group" "nodes" {
  cluster_name    = aws_eks_cluster.shopcat.name
  node_group_name = "nodes"
  node_role_arn   = aws_iam_role.nodes.arn
  subnet_ids      = aws_subnet.private[*].id
  instance_types  = ["t3.medium"]

  scaling_config {
    min_size     = 2
    max_size     = 2
    desired_size = 2
  }

  depends_on = [aws_iam_role_policy_attachment.nodes]
}

resource "aws_ecr_repository" "shopcat" {
  name                 = "shopcat"
  image_tag_mutability = "MUTABLE"
}
