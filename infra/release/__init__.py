"""A release: what is wanted, what the ledger allows, what is declared, and the steps that shift traffic."""
