"""Access in AWS: policies, the roles of GitHub's workflows, and the permissions boundaries."""
