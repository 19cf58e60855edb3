"""The plan of a takeover from Terraform and Helm: decisions about documents that were read; nothing here asks anybody anything.

`redaction` knows what must never be printed, `state` and `helm` read documents, `declared` records what this program declares,
`kinds` holds Terraform's types, `differences` compares values, `matching` pairs what is there with what is declared, `plan`
decides, `report` prints. `live` alone asks AWS and the cluster, by reads.
"""
