"""The platform under releases and previews: network, cluster, add-ons, database, load balancers, DNS, registry."""
