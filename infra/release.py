"""BlueGreen: two colours behind one weighted listener rule.

What `production.py` does with it::

    clients = AwsClients.create(region, endpoint_url=settings.aws_endpoint)
    plan = preflight.read(settings, clients)     # before anything is declared; raises infra.record.Refused (one message)
    release = BlueGreen(
        "shopcat",
        plan=plan,
        clients=clients,
        target_group_arns={"blue": edge.target_groups["blue"].arn, "green": edge.target_groups["green"].arn},
        load_balancer_security_group_id=edge.security_group.id,
        platform=[addons, database, edge],       # the release depends on all of it
        opts=ResourceOptions(provider=kubernetes_provider),
    )
    pulumi.export("liveRelease", release.live_release)   # "v1.0.0" or ""
    pulumi.export("liveColour", release.live_colour)     # "green", "blue" or ""
    pulumi.export("releases", release.table)             # the ledger, readable
    pulumi.export("release", release.message)            # what was decided, and what to do next

Names that edge.py, database.py and bootstrap.py must use (constants in infra/record.py): namespace `shopcat`, target groups
`shopcat-blue` and `shopcat-green`, load balancer `shopcat`, ECR repository `shopcat`. The application's own secret is JSON with the keys
host, port, dbname, username, password. The ledger's table is made from `ledger.table_definition(name)` and then
`ledger.Ledger(client, name).initialise()` (both idempotent through bootstrap); its name is a setting.
"""
