variable "region" {
  type    = string
  default = "eu-central-1"
}

variable "database_password" {
  type      = string
  sensitive = true
}
