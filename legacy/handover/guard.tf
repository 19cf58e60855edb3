# Copy this file beside the other .tf files of the old repository once ShopCat is handed over to Pulumi. From then on plan, apply,
# destroy, refresh and import end with the message below. It needs no provider, adds nothing to the state, and holds for plans
# saved before it too, since the hand-over makes them stale. docs/takeover-handover.md has the steps.

variable "shopcat_keeper" {
  description = "Who keeps ShopCat. Only the steps of docs/takeover-handover.md set it to terraform, each for one command."
  type        = string
  default     = "pulumi"

  validation {
    condition     = var.shopcat_keeper == "terraform"
    error_message = "Refused: ShopCat's database and repository belong to Pulumi now, and Terraform would set back what Pulumi changed, or make them again. Change them with `pulumi up -s prod`. To read only: terraform plan -var shopcat_keeper=terraform. The way back is in docs/takeover-handover.md of the Pulumi repository."
  }
}
