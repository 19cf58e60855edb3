"""ShopCat on one machine: a twin of its AWS account for rehearsals and proofs.

Nothing in ``infra/`` imports this package or knows of it.
"""
