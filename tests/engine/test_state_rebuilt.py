"""A state that is lost with all its versions, rebuilt by one update; nothing that serves is made anew (docs/restore.md)."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engine.test_killed import killed
from tests.engine.test_restore_drill import restorable_moment
from tests.tools import aws, command, kubectl, settings_file, summary
from twin import pulumi
from twin.config import Twin
from twin.scenarios import production

pytestmark = pytest.mark.engine

UP = ["pulumi", "up", "-s", "prod", "--yes", "--skip-preview", "--non-interactive"]


def in_aws(twin: Twin) -> dict[str, Any]:
    """Return what must stay as it is: ids of what is made, weights, versions of secrets and what they hold, the ledger."""
    ec2, elb, iam, kms = (aws(twin, service) for service in ("ec2", "elbv2", "iam", "kms"))
    manager, eks, rds = (aws(twin, service) for service in ("secretsmanager", "eks", "rds"))
    balancers = elb.describe_load_balancers()["LoadBalancers"]
    listeners = [
        listener["ListenerArn"]
        for balancer in balancers
        for listener in elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    ]
    rules = [rule for arn in listeners for rule in elb.describe_rules(ListenerArn=arn)["Rules"]]
    groups = elb.describe_target_groups()["TargetGroups"]
    names = [entry["Name"] for entry in manager.list_secrets()["SecretList"]]
    role_names = [role["RoleName"] for role in iam.list_roles()["Roles"]]
    (node_group,) = eks.list_nodegroups(clusterName="shopcat")["nodegroups"]
    return {
        "vpcs": sorted(each["VpcId"] for each in ec2.describe_vpcs()["Vpcs"]),
        "subnets": sorted(each["SubnetId"] for each in ec2.describe_subnets()["Subnets"]),
        "route tables": sorted(each["RouteTableId"] for each in ec2.describe_route_tables()["RouteTables"]),
        "addresses": sorted(each["PublicIp"] for each in ec2.describe_addresses()["Addresses"]),
        "gateways": sorted((each["NatGatewayId"], each["State"]) for each in ec2.describe_nat_gateways()["NatGateways"]),
        "security groups": sorted(each["GroupId"] for each in ec2.describe_security_groups()["SecurityGroups"]),
        "group rules": sorted(
            each["SecurityGroupRuleId"] for each in ec2.describe_security_group_rules()["SecurityGroupRules"]
        ),
        "template": [
            (each["LaunchTemplateId"], each["LatestVersionNumber"])
            for each in ec2.describe_launch_templates()["LaunchTemplates"]
        ],
        "roles": sorted(role_names),
        "role policies": {name: iam.list_role_policies(RoleName=name)["PolicyNames"] for name in role_names},
        "keys": sorted((key["KeyId"], kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["KeyState"])
                       for key in kms.list_keys()["Keys"]),
        "certificates": sorted(
            each["CertificateArn"] for each in aws(twin, "acm").list_certificates()["CertificateSummaryList"]
        ),
        "cluster": eks.describe_cluster(name="shopcat")["cluster"]["createdAt"],
        "nodes": eks.describe_nodegroup(clusterName="shopcat", nodegroupName=node_group)["nodegroup"]["nodegroupArn"],
        "balancers": sorted(each["LoadBalancerArn"] for each in balancers),
        "groups": sorted(each["TargetGroupArn"] for each in groups),
        "targets": sorted(
            (group["TargetGroupName"], health["Target"]["Id"], health["TargetHealth"]["State"])
            for group in groups
            for health in elb.describe_target_health(TargetGroupArn=group["TargetGroupArn"])["TargetHealthDescriptions"]
            if health["TargetHealth"]["State"] != "draining"
        ),
        "rules": sorted((rule["RuleArn"], rule["Priority"], json.dumps(rule["Actions"])) for rule in rules),
        "databases": [
            (each["DbiResourceId"], each["MasterUserSecret"]["SecretArn"], each["Endpoint"]["Address"])
            for each in rds.describe_db_instances()["DBInstances"]
        ],
        "secrets": {
            name: manager.get_secret_value(SecretId=name)["SecretString"] for name in names if name != "shopcat/login-blue"
        },
        "versions": {name: sorted(manager.describe_secret(SecretId=name).get("VersionIdsToStages", {})) for name in names},
        "ledger": sorted(
            json.dumps(item, sort_keys=True, default=str)
            for item in aws(twin, "dynamodb").scan(TableName="shopcat-releases")["Items"]
        ),
    }  # fmt: skip


def in_cluster(twin: Twin) -> dict[str, Any]:
    """Return the identity of each pod, node and object of the release, and how often a pod was started."""
    pods = kubectl(twin, "get", "pods", "-A")["items"]
    found: dict[str, Any] = {
        "pods": sorted(
            (pod["metadata"]["namespace"], pod["metadata"]["uid"], status["restartCount"])
            for pod in pods
            for status in pod["status"].get("containerStatuses", [])
        ),
        "nodes": sorted(node["metadata"]["uid"] for node in kubectl(twin, "get", "nodes")["items"]),
    }
    kinds = ("deployment", "service", "targetgroupbinding", "externalsecret", "job", "configmap", "poddisruptionbudget")
    for kind in kinds:
        objects = kubectl(twin, "get", kind, "-n", "shopcat")["items"]
        found[kind] = sorted((each["metadata"]["name"], each["metadata"]["uid"]) for each in objects)
    spaces = kubectl(twin, "get", "namespaces")["items"]
    found["namespaces"] = sorted((each["metadata"]["name"], each["metadata"]["uid"]) for each in spaces)
    return found


def differing(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {key: (before[key], after.get(key)) for key in before if before[key] != after.get(key)}


def lose_the_state(twin: Twin) -> None:
    """Take the state away with every backup of it, and make the stack anew as the guide's first step does."""
    backend = twin.directory / "pulumi-state"
    shutil.rmtree(backend)
    backend.mkdir()
    pulumi.up(twin)
    (stack,) = json.loads(command(twin, ["pulumi", "stack", "ls", "--json"]).stdout)
    assert (stack["name"], stack.get("resourceCount", 0)) == ("prod", 0)


def test_a_lost_state_is_rebuilt_by_one_update_and_nothing_is_made_anew(simulated: Twin, tmp_path: Path) -> None:
    twin = simulated
    outputs = production.outputs(twin)
    known = len(
        json.loads(command(twin, ["pulumi", "stack", "export", "-s", "prod"]).stdout)["deployment"]["resources"]
    )
    before = in_aws(twin), in_cluster(twin)
    lose_the_state(twin)
    rebuild = settings_file(twin, tmp_path, {"shopcat:rebuildState": True})

    # Killed right after AWS has carried out its fortieth call that changes something, then run again.
    environment = {**pulumi.environment(twin), "PULUMI_OPTION_CONFIG_FILE": str(rebuild)}
    done, said = killed(twin, ["up", "-s", "prod"], environment, 40)
    assert done, said
    command(twin, ["pulumi", "cancel", "-s", "prod", "--yes"])
    assert differing(before[0], in_aws(twin)) == {}
    half = json.loads(command(twin, ["pulumi", "stack", "export", "-s", "prod"]).stdout)["deployment"]["resources"]
    assert 0 < len(half) < known

    result = command(twin, UP, check=False, PULUMI_OPTION_CONFIG_FILE=str(rebuild))
    print(*(line for line in result.stdout.splitlines() if line.startswith("Duration")))
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr
    counts = summary(result.stdout)
    assert set(counts) <= {"created", "updated", "imported", "unchanged"}, counts
    assert differing(before[0], in_aws(twin)) == {}
    assert differing(before[1], in_cluster(twin)) == {}

    # The next plain update has nothing to change, whatever name the provider once made up.
    assert set(summary(command(twin, UP).stdout)) == {"unchanged"}
    assert production.outputs(twin) == outputs
    exported = json.loads(command(twin, ["pulumi", "stack", "export", "-s", "prod"]).stdout)["deployment"]
    assert len(exported["resources"]) == known
    assert not [each for each in exported["resources"] if each.get("delete") or each.get("external")]
    assert differing(before[0], in_aws(twin)) == {}
    assert differing(before[1], in_cluster(twin)) == {}


def test_the_rebuilt_state_releases_as_before(simulated: Twin, tmp_path: Path) -> None:
    """As far as simulated pods can: every check is passed, nothing answers a request."""
    tag = "v1.0.1"
    production.push_image(simulated, Path("twin/application"), tag)
    held = settings_file(simulated, tmp_path, {"shopcat:tag": tag, "shopcat:holdTraffic": True})
    result = command(simulated, UP, check=False, PULUMI_OPTION_CONFIG_FILE=str(held))
    said = result.stdout + result.stderr
    assert "has passed every check in blue and is held before traffic moves" in said, said

    # A state that is lost now moves no traffic while it is rebuilt either.
    lose_the_state(simulated)
    rebuild = settings_file(simulated, tmp_path, {"shopcat:rebuildState": True})
    result = command(simulated, UP, check=False, PULUMI_OPTION_CONFIG_FILE=str(rebuild))
    said = result.stdout + result.stderr
    assert "has passed every check in blue and is held before traffic moves" in said, said
    aborted = settings_file(simulated, tmp_path, {"shopcat:abort": tag})
    command(simulated, UP, PULUMI_OPTION_CONFIG_FILE=str(aborted))
    assert production.outputs(simulated)["liveRelease"] == production.FIRST_TAG
    assert set(summary(command(simulated, UP).stdout)) == {"unchanged"}


def unmanaged(twin: Twin) -> list[str]:
    """Return what has this stack's tag and is not in its state, as docs/restore.md lists it."""
    state = command(twin, ["pulumi", "stack", "export", "-s", "prod"]).stdout
    tagging = aws(twin, "resourcegroupstaggingapi").get_paginator("get_resources")
    pages = tagging.paginate(TagFilters=[{"Key": "shopcat:stack", "Values": ["prod"]}])
    names = [entry["ResourceARN"] for page in pages for entry in page["ResourceTagMappingList"]]
    return [name for name in names if f'"{name}"' not in state and f'"{name.rpartition("/")[2]}"' not in state]


def test_every_other_setting_s_resources_are_taken_up_as_well(simulated: Twin, tmp_path: Path) -> None:
    """Alarms with budget and webhook, GitHub's roles, administrators, and a restored database, whose moment nobody tells."""
    twin = simulated
    present = yaml.safe_load((twin.directory / "Pulumi.prod.yaml").read_text())["config"]
    more = {
        "shopcat:monitoring": {
            "email": "ops@example.com", "webhook": "https://hooks.example.com/x", "monthlyBudgetUsd": 200,
        },
        "shopcat:github": {"repository": "owner/shop"},
        "shopcat:cluster": {**present["shopcat:cluster"], "administrators": ["arn:aws:iam::123456789012:role/admins"]},
        "shopcat:database": {**present["shopcat:database"], "restore": {"at": restorable_moment(twin)}},
    }  # fmt: skip
    chosen = settings_file(twin, tmp_path, more)
    command(twin, UP, PULUMI_OPTION_CONFIG_FILE=str(chosen))
    before = in_aws(twin), in_cluster(twin), what_watches(twin)
    assert len(before[0]["databases"]) == 2
    assert all(before[2].values())
    lose_the_state(twin)
    assert len(unmanaged(twin)) > 20

    # Another name than the last update's: no second database is made.
    other = {**more["shopcat:database"], "identifier": "shopcat-2"}
    wrong = settings_file(twin, tmp_path / "wrong", {**more, "shopcat:database": other, "shopcat:rebuildState": True})
    refused = command(twin, UP, check=False, PULUMI_OPTION_CONFIG_FILE=str(wrong))
    assert refused.returncode != 0
    assert "aws:rds/instance:Instance database: there is none of the name shopcat-2" in refused.stdout + refused.stderr
    assert differing(before[0], in_aws(twin)) == {}

    rebuild = settings_file(twin, tmp_path / "rebuild", {**more, "shopcat:rebuildState": True})
    result = command(twin, UP, check=False, PULUMI_OPTION_CONFIG_FILE=str(rebuild))
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr
    assert unmanaged(twin) == []
    assert differing(before[0], in_aws(twin)) == {}
    assert differing(before[1], in_cluster(twin)) == {}
    assert differing(before[2], what_watches(twin)) == {}
    assert set(summary(command(twin, UP, PULUMI_OPTION_CONFIG_FILE=str(chosen)).stdout)) == {"unchanged"}
    # Access to the cluster is protected as it is, so an administrator goes by `pulumi state unprotect` alone.
    fewer = settings_file(twin, tmp_path / "fewer", {"shopcat:cluster": more["shopcat:cluster"]})
    command(twin, UP, PULUMI_OPTION_CONFIG_FILE=str(fewer))
    assert len(in_aws(twin)["databases"]) == 1


def what_watches(twin: Twin) -> dict[str, Any]:
    """Return the identity of alarms, topic, subscriptions, dashboard, metric filters, budget and access entries."""
    cloudwatch, sns, eks = (aws(twin, service) for service in ("cloudwatch", "sns", "eks"))
    account = aws(twin, "sts").get_caller_identity()["Account"]
    entries = [
        eks.describe_access_entry(clusterName="shopcat", principalArn=principal)["accessEntry"]
        for principal in eks.list_access_entries(clusterName="shopcat")["accessEntries"]
    ]
    return {
        "entries": sorted(
            (entry["accessEntryArn"], entry["type"], entry["username"], str(entry["kubernetesGroups"]))
            for entry in entries
        ),
        "alarms": sorted(each["AlarmArn"] for each in cloudwatch.describe_alarms()["MetricAlarms"]),
        "dashboards": sorted(each["DashboardArn"] for each in cloudwatch.list_dashboards()["DashboardEntries"]),
        "topics": sorted(each["TopicArn"] for each in sns.list_topics()["Topics"]),
        "subscriptions": sorted(
            (each["Protocol"], each["Endpoint"]) for each in sns.list_subscriptions()["Subscriptions"]
        ),
        "filters": sorted(each["filterName"] for each in aws(twin, "logs").describe_metric_filters()["metricFilters"]),
        "budgets": sorted(
            each["BudgetName"] for each in aws(twin, "budgets").describe_budgets(AccountId=account)["Budgets"]
        ),
    }


def test_what_can_not_be_found_is_not_made_a_second_time(simulated: Twin, tmp_path: Path) -> None:
    """Without its tag the VPC is nobody's; the update makes none and names it."""
    ec2 = aws(simulated, "ec2")
    tag = {"Key": "shopcat:stack", "Value": "prod"}
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "tag:shopcat:stack", "Values": ["prod"]}])["Vpcs"]
    ec2.delete_tags(Resources=[vpc["VpcId"]], Tags=[tag])
    before = in_aws(simulated)
    lose_the_state(simulated)
    rebuild = settings_file(simulated, tmp_path, {"shopcat:rebuildState": True})
    result = command(simulated, UP, check=False, PULUMI_OPTION_CONFIG_FILE=str(rebuild))
    assert result.returncode != 0
    assert "aws:ec2/vpc:Vpc vpc: none has this stack's tag shopcat:stack=prod" in result.stdout + result.stderr
    assert differing(before, in_aws(simulated)) == {}

    # The way back, from any point: what the state has taken up is forgotten and stays.
    command(simulated, ["pulumi", "stack", "rm", "prod", "--force", "--yes", "--preserve-config"])
    assert json.loads(command(simulated, ["pulumi", "stack", "ls", "--json"]).stdout) == []
    assert differing(before, in_aws(simulated)) == {}
