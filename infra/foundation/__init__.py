"""What releases and previews stand on: network, cluster, add-ons, database, load balancers, DNS, registry."""
