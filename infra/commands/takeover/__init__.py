"""The plan of a takeover from Terraform and Helm: decisions about documents that were read.

`redaction` knows what must never be printed, `state` and `helm` read documents, `declaration` is one resource of this program,
`kinds` holds Terraform's types, `differences` compares values, `matching` pairs what is there with what is declared, `layout`
and `nodes` describe what is there by settings, `plan` decides, `report` prints. Two are apart: `declared` runs the program's
components to record what they declare, and `live` asks AWS and the cluster, by reads.
"""
