"""The production stack under the real engine: up, no-op, change, refresh, bad input, destroy. Nodes are simulated."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.foundation.auto_names import name_of_content
from infra.release.blue_green import POINTER
from tests.tools import aws, command, kubectl, settings_file, summary
from twin import config, pulumi
from twin.config import Twin
from twin.paths import REPOSITORY
from twin.plugins.common import UNKNOWN
from twin.scenarios import production

pytestmark = pytest.mark.engine

UP = ["pulumi", "up", "-s", "prod", "--yes", "--skip-preview"]


def test_first_release_is_live(simulated: Twin) -> None:
    outputs = production.outputs(simulated)
    assert outputs["liveRelease"] == production.FIRST_TAG
    assert outputs["liveColour"] == "green"


def test_second_up_changes_nothing(simulated: Twin) -> None:
    counts = summary(command(simulated, UP).stdout)
    assert set(counts) == {"unchanged"}, counts
    assert counts["unchanged"] > 50


def test_refresh_finds_no_drift(simulated: Twin) -> None:
    command(simulated, ["pulumi", "refresh", "-s", "prod", "--yes", "--skip-preview"])
    counts = summary(command(simulated, UP).stdout)
    assert set(counts) == {"unchanged"}, counts


def test_controller_chart_has_what_the_real_one_has(simulated: Twin) -> None:
    """Definitions, class and webhooks of aws/eks-charts 3.5.0; a pod that asks for what is not played is refused by name."""
    definitions = {one["metadata"]["name"] for one in kubectl(simulated, "get", "crd")["items"]}
    assert definitions >= {
        "albtargetcontrolconfigs.elbv2.k8s.aws", "globalaccelerators.aga.k8s.aws", "ingressclassparams.elbv2.k8s.aws",
        "targetgroupbindings.elbv2.k8s.aws", "listenerruleconfigurations.gateway.k8s.aws",
        "loadbalancerconfigurations.gateway.k8s.aws", "targetgroupconfigurations.gateway.k8s.aws",
    }  # fmt: skip
    assert kubectl(simulated, "get", "ingressclass", "alb")["spec"] == {"controller": "ingress.k8s.aws/alb"}
    assert kubectl(simulated, "get", "ingressclassparams.elbv2.k8s.aws", "alb")
    hooks = kubectl(simulated, "get", "mutatingwebhookconfiguration", "aws-load-balancer-webhook")["webhooks"]
    assert [one["name"].removesuffix(".elbv2.k8s.aws") for one in hooks] == [
        "mpod", "quicid", "alb-target-control.namespace", "alb-target-control.object", "mtargetgroupbinding",
    ]  # fmt: skip
    hooks = kubectl(simulated, "get", "validatingwebhookconfiguration", "aws-load-balancer-webhook")["webhooks"]
    assert [one["name"].removesuffix(".elbv2.k8s.aws") for one in hooks] == [
        "vingressclassparams", "vtargetgroupbinding", "vingress",
    ]  # fmt: skip
    label = "--labels=elbv2.k8s.aws/alb-target-control-agent-inject=true"
    run = ["kubectl", "run", "asks", "-n", "default", label, "--image=nowhere.invalid/any", "--dry-run=server"]
    refused = command(simulated, run, check=False)
    assert refused.returncode != 0
    assert "twin: ALB Target Control" in refused.stderr


def test_nodes_bindings_and_load_balancers_are_gone_before_their_way_out(simulated: Twin) -> None:
    """A destroy deletes what others depend on last, whatever else it does at the same time."""
    exported = json.loads(command(simulated, ["pulumi", "stack", "export", "-s", "prod"]).stdout)
    resources = {one["urn"]: one for one in exported["deployment"]["resources"]}
    way_out = {
        urn: (one["type"].rpartition(":")[2], urn.rpartition("::")[2])
        for urn, one in resources.items()
        if one["type"].rpartition(":")[2] in ("InternetGateway", "NatGateway", "Route", "RouteTableAssociation")
    }
    assert len(way_out) == 11
    gateway = {("InternetGateway", "internet"), ("Route", "public-default")}
    public, preview = (
        {("RouteTableAssociation", f"{kind}-{index}") for index in (0, 1)} for kind in ("public", "preview")
    )
    ours = set(way_out.values()) - preview
    expected = {
        # The one NAT gateway is in the first public subnet.
        "aws:eks/nodeGroup:NodeGroup::nodes": ours - {("RouteTableAssociation", "public-1")},
        "kubernetes:elbv2.k8s.aws/v1beta1:TargetGroupBinding::binding-blue": ours,
        "kubernetes:elbv2.k8s.aws/v1beta1:TargetGroupBinding::binding-green": ours,
        "aws:lb/loadBalancer:LoadBalancer::shopcat": gateway | public,
        "aws:lb/loadBalancer:LoadBalancer::shopcat-preview": gateway | preview,
    }

    def needs(urn: str) -> set[str]:
        found: set[str] = set()
        left = {urn}
        while left:
            found |= left
            left = {one for each in left for one in resources[each].get("dependencies", [])} - found
        return found

    for name, wanted in expected.items():
        (urn,) = [one for one in resources if one.endswith(f"${name}")]
        missing = wanted - {way_out.get(need) for need in needs(urn)}
        assert not missing, f"{urn} does not depend on {missing}"


def test_a_platform_setting_changes_only_what_it_names(simulated: Twin, tmp_path: Path) -> None:
    settings = yaml.safe_load((simulated.directory / "Pulumi.prod.yaml").read_text())["config"]
    database: dict[str, Any] = dict(settings.get("shopcat:database") or {})
    database["backupRetentionDays"] = 13
    changed = settings_file(simulated, tmp_path, {"shopcat:database": database})
    counts = summary(command(simulated, UP, PULUMI_OPTION_CONFIG_FILE=str(changed)).stdout)
    assert counts.pop("unchanged") > 50
    assert counts == {"updated": 1}
    assert summary(command(simulated, UP).stdout).get("updated") == 1


def test_a_record_has_one_name_whichever_role_its_host_has(simulated: Twin, tmp_path: Path) -> None:
    """From a state with the records' former names: an alias is added, becomes `domain`, and is given up."""
    domain = yaml.safe_load((simulated.directory / "Pulumi.prod.yaml").read_text())["config"]["shopcat:domain"]
    alias, route53 = f"www.{domain}", aws(simulated, "route53")

    def update(changes: dict[str, Any]) -> tuple[dict[str, int], str]:
        path = settings_file(simulated, tmp_path, changes)
        said = command(simulated, [*UP, "--non-interactive"], PULUMI_OPTION_CONFIG_FILE=str(path)).stdout
        return summary(said), said

    def records() -> list[str]:
        (zone,) = [each for each in route53.list_hosted_zones()["HostedZones"] if each["Name"] == f"{domain}."]
        listed = route53.list_resource_record_sets(HostedZoneId=zone["Id"])["ResourceRecordSets"]
        return sorted(json.dumps(each, sort_keys=True) for each in listed if each["Type"] in ("A", "CNAME"))

    before, state = records(), command(simulated, ["pulumi", "stack", "export", "-s", "prod"]).stdout
    for name, former in (("address", "shopcat-0"), ("validation", "shopcat-validation")):
        assert f'::shopcat-{name}@{domain}"' in state
        state = state.replace(f'::shopcat-{name}@{domain}"', f'::{former}"')
    path = tmp_path / "state.json"
    path.write_text(state)
    command(simulated, ["pulumi", "stack", "import", "-s", "prod", "--file", str(path)])

    counts, said = update({"shopcat:domainAliases": [alias]})
    assert {key: counts.get(key) for key in ("created", "updated", "replaced", "deleted")} == {
        "created": 2, "updated": 1, "replaced": 2, "deleted": None,
    }, counts  # fmt: skip
    assert said.index("Listener shopcat-https updated") < said.index(f"shopcat-address@{alias} created")
    both = records()
    assert set(before) < set(both)
    assert len(both) == len(before) + 2

    counts, said = update({"shopcat:hostedZone": domain, "shopcat:domain": alias, "shopcat:domainAliases": [domain]})
    assert (counts.get("updated"), counts.get("replaced")) == (1, 2), counts
    assert not set(counts) & {"created", "deleted"}, counts
    assert "aws:route53:Record" not in said
    assert records() == both
    assert said.index("Certificate shopcat created replacement") < said.index("Listener shopcat-https updated")
    assert said.index("Listener shopcat-https updated") < said.index("Certificate shopcat deleting original")

    update({})
    assert records() == before
    assert set(summary(command(simulated, UP).stdout)) == {"unchanged"}


def test_an_administrator_is_taken_out_wherever_he_stands(simulated: Twin, tmp_path: Path) -> None:
    cluster = yaml.safe_load((simulated.directory / "Pulumi.prod.yaml").read_text())["config"]["shopcat:cluster"]
    first, second = (f"arn:aws:iam::{config.ACCOUNT_ID}:role/{name}" for name in ("first", "second"))

    def up(*administrators: str) -> dict[str, int]:
        changed = settings_file(
            simulated, tmp_path, {"shopcat:cluster": {**cluster, "administrators": [*administrators]}}
        )
        return summary(command(simulated, UP, PULUMI_OPTION_CONFIG_FILE=str(changed)).stdout)

    def state() -> str:
        return command(simulated, ["pulumi", "stack", "export", "-s", "prod"]).stdout

    before = set(re.findall(r"administrator-\w+", state()))
    assert up(first, second)["created"] == 4
    # States of before name them by their place in the list.
    text = state()
    names = [name_of_content("administrator", [role]) for role in (first, second)]
    assert set(re.findall(r"administrator-\w+", text)) - before == set(names)
    for place, name in enumerate(names):
        text = text.replace(name, f"administrator-{place}")
    file = tmp_path / "state.json"
    file.write_text(text)
    command(simulated, ["pulumi", "stack", "import", "-s", "prod", "--file", str(file)])
    assert set(up(first, second)) == {"unchanged"}
    counts = up(second)
    assert (counts.pop("deleted"), set(counts)) == (2, {"unchanged"})
    assert summary(command(simulated, UP).stdout)["deleted"] == 2


def test_external_dns_has_its_records_entered_by_a_person(simulated: Twin, tmp_path: Path) -> None:
    settings = yaml.safe_load((simulated.directory / "Pulumi.prod.yaml").read_text())["config"]
    domain, previews = settings["shopcat:domain"], settings["shopcat:previewDomain"]
    changed = settings_file(simulated, tmp_path, {"shopcat:dns": "external"})
    said = command(simulated, UP, PULUMI_OPTION_CONFIG_FILE=str(changed)).stdout
    try:
        records: Any = production.outputs(simulated)["dnsRecords"]
        assert [one["type"] for one in records] == ["CNAME"] * 4
        assert [records[1]["name"], records[3]["name"]] == [domain, f"*.{previews}"]
        assert len({one["name"] for one in records}) == 4
        for one in records:
            assert f"{one['name']} CNAME {one['value']}" in said
    finally:
        # In new zones: moto takes a record that was deleted for one that is there.
        route53 = aws(simulated, "route53")
        for name in (domain, previews):
            (zone,) = [one for one in route53.list_hosted_zones()["HostedZones"] if one["Name"].rstrip(".") == name]
            route53.delete_hosted_zone(Id=zone["Id"])
            route53.create_hosted_zone(Name=name, CallerReference=f"{tmp_path} {name}")
        command(simulated, UP)
    assert production.outputs(simulated)["dnsRecords"] == []
    assert set(summary(command(simulated, UP).stdout)) == {"unchanged"}


def test_previews_on_the_shops_site_are_said_by_every_update(simulated: Twin, tmp_path: Path) -> None:
    domain = yaml.safe_load((simulated.directory / "Pulumi.prod.yaml").read_text())["config"]["shopcat:domain"]
    shared = {"shopcat:previewDomain": f"preview.{domain}"}
    assert "one site" in refusal(simulated, tmp_path, shared)
    changed = settings_file(simulated, tmp_path, {**shared, "shopcat:previewDomainShared": True})
    said = command(simulated, ["pulumi", "preview", "-s", "prod"], PULUMI_OPTION_CONFIG_FILE=str(changed)).stdout
    assert "previews below preview." in said
    assert "can set the shop's cookies" in said


def test_other_release_settings_never_roll_live_pods(simulated: Twin, tmp_path: Path) -> None:
    before = kubectl(simulated, "get", "deployment", "shopcat-green", "-n", "shopcat")["metadata"]["generation"]
    settings = yaml.safe_load((simulated.directory / "Pulumi.prod.yaml").read_text())["config"]
    release: dict[str, Any] = dict(settings.get("shopcat:release") or {})
    release["cpu"] = "150m"
    changed = settings_file(simulated, tmp_path, {"shopcat:release": release})
    result = command(simulated, UP, PULUMI_OPTION_CONFIG_FILE=str(changed))
    assert "settings differ from live" in result.stdout
    after = kubectl(simulated, "get", "deployment", "shopcat-green", "-n", "shopcat")["metadata"]["generation"]
    assert after == before


def test_what_somebody_deleted_is_made_again_by_a_plain_update(simulated: Twin) -> None:
    release = production.FIRST_TAG
    objects = [
        ("deployment", "shopcat-green"), ("service", "shopcat-green"), ("targetgroupbinding", "shopcat-green"),
        ("poddisruptionbudget", "shopcat-blue"), ("networkpolicy", "ingress"), ("secretstore", "shopcat"),
        ("externalsecret", f"shopcat-{release}-r1-a1"), ("configmap", POINTER),
    ]  # fmt: skip
    before = {one: kubectl(simulated, "get", *one, "-n", "shopcat") for one in objects}
    for one in objects:
        command(simulated, ["kubectl", "delete", *one, "-n", "shopcat", "--timeout=60s"])
    said = command(simulated, UP).stdout
    told = set(re.findall(r"(\w+) (\S+) was deleted; it is made again", said))
    assert {(kind.lower(), name) for kind, name in told} == set(objects)
    for one, was in before.items():
        again = kubectl(simulated, "get", *one, "-n", "shopcat")
        assert again["metadata"]["uid"] != was["metadata"]["uid"]
        own = [dict(each.get("spec") or {}) for each in (again, was)]
        for spec in own:
            for key in ("clusterIP", "clusterIPs"):
                spec.pop(key, None)
        assert own[0] == own[1]
    assert set(summary(command(simulated, UP).stdout)) == {"unchanged"}


def test_what_the_state_has_lost_is_taken_up_again(simulated: Twin, tmp_path: Path) -> None:
    """Leave the state as an update does that was killed between a write and its checkpoint."""
    stack = json.loads(command(simulated, ["pulumi", "stack", "export", "-s", "prod"]).stdout)
    resources = stack["deployment"]["resources"]
    (lost,) = [one["urn"] for one in resources if one["urn"].endswith("::secret-v1.0.0-r1-a1")]
    stack["deployment"]["resources"] = [one for one in resources if one["urn"] != lost]
    for one in resources:
        one["dependencies"] = [urn for urn in one.get("dependencies", []) if urn != lost]
    path = tmp_path / "state.json"
    path.write_text(json.dumps(stack))
    command(simulated, ["pulumi", "stack", "import", "-s", "prod", "--file", str(path)])
    counts = summary(command(simulated, UP).stdout)
    assert counts.pop("unchanged") > 50
    assert counts == {"created": 1}
    assert set(summary(command(simulated, UP).stdout)) == {"unchanged"}


def refusal(simulated: Twin, tmp_path: Path, changes: dict[str, Any], **environment: str) -> str:
    """Return the message with which `pulumi preview` refuses; it must be one, without a traceback."""
    path = settings_file(simulated, tmp_path, changes)
    environment = {"PULUMI_OPTION_CONFIG_FILE": str(path), **environment}
    result = command(simulated, ["pulumi", "preview", "-s", "prod"], check=False, **environment)
    assert result.returncode != 0, result.stdout
    text = result.stdout + result.stderr
    assert "Traceback" not in text, text
    return text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"shopcat:tag": "latest"}, ["latest", "shopcat:tag"]),
        ({"shopcat:tag": "v9.9.9"}, ["v9.9.9", "shopcat"]),
        ({"shopcat:nonsense": "1"}, ["nonsense", "unknown"]),
        ({"shopcat:apiAccess": None}, ["apiAccess", "public", "cidrs", "private"]),
        ({"shopcat:previewDomain": None}, ["previewDomain", "has no default", "another registration"]),
    ],
    ids=["tag-latest", "tag-absent", "unknown-setting", "api-access-missing", "preview-domain-missing"],
)
def test_bad_settings_get_one_clear_error(
    simulated: Twin, tmp_path: Path, changes: dict[str, Any], expected: list[str]
) -> None:
    text = refusal(simulated, tmp_path, changes)
    for word in expected:
        assert word in text


def test_drain_numbers_that_break_an_inequality_are_refused_with_both_values(simulated: Twin, tmp_path: Path) -> None:
    settings = yaml.safe_load((simulated.directory / "Pulumi.prod.yaml").read_text())["config"]
    drain: dict[str, Any] = dict(settings.get("shopcat:drain") or {})
    drain.update({"appDrain": 20, "longestRequest": 30})
    text = refusal(simulated, tmp_path, {"shopcat:drain": drain})
    for word in ("appDrain", "longestRequest", "20", "31"):
        assert word in text


def test_too_many_replicas_for_two_nodes_are_refused(simulated: Twin, tmp_path: Path) -> None:
    settings = yaml.safe_load((simulated.directory / "Pulumi.prod.yaml").read_text())["config"]
    release: dict[str, Any] = dict(settings.get("shopcat:release") or {})
    release["replicas"] = 9
    text = refusal(simulated, tmp_path, {"shopcat:release": release})
    assert "replicas" in text
    assert "t3.medium" in text


def test_no_credentials(simulated: Twin, tmp_path: Path) -> None:
    empty = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
    text = refusal(simulated, tmp_path, {}, **empty)
    assert "credentials" in text


def test_aws_endpoint_down(simulated: Twin, tmp_path: Path) -> None:
    text = refusal(simulated, tmp_path, {"shopcat:awsEndpoint": "http://127.0.0.1:9"})
    assert "127.0.0.1:9" in text
    assert "awsEndpoint" in text


def test_no_ledger_says_bootstrap(simulated: Twin, tmp_path: Path) -> None:
    text = refusal(simulated, tmp_path, {"shopcat:ledgerTable": "no-such-table"})
    assert "no-such-table" in text
    assert "make bootstrap" in text


def test_a_ledger_that_can_not_be_read_is_unknown(simulated: Twin, tmp_path: Path) -> None:
    """The previews' table has another key, so DynamoDB refuses to read a ledger from it."""
    text = refusal(simulated, tmp_path, {"shopcat:ledgerTable": "shopcat-previews"})
    assert "release ledger shopcat-previews can't be read" in text


def test_stack_names_other_than_prod_and_pr_n_are_refused(simulated: Twin) -> None:
    command(simulated, ["pulumi", "stack", "init", "staging", "--secrets-provider", "passphrase"])
    try:
        result = command(simulated, ["pulumi", "preview", "-s", "staging"], check=False)
        assert result.returncode != 0
        assert "staging" in result.stdout + result.stderr
        assert "pr-<n>" in result.stdout + result.stderr
        assert "Traceback" not in result.stdout + result.stderr
    finally:
        command(simulated, ["pulumi", "stack", "rm", "staging", "--yes"])
        command(simulated, ["pulumi", "stack", "select", "prod"])


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in leaves(item, f"{path}.{key}").items()}
    if isinstance(value, list):
        return {k: v for index, item in enumerate(value) for k, v in leaves(item, f"{path}[{index}]").items()}
    return {path: value}


def test_the_overlay_changes_its_own_values_alone(simulated: Twin, tmp_path: Path) -> None:
    """The plan with the committed settings differs from the twin's in the overlay's values and in nothing else."""
    overlay = pulumi.overlay(simulated)
    committed = yaml.safe_load((REPOSITORY / "Pulumi.prod.yaml").read_text())["config"]
    for name in (committed["shopcat:domain"], committed["shopcat:previewDomain"]):
        aws(simulated, "route53").create_hosted_zone(Name=name, CallerReference=name)
    # A chart that changes is read while it is planned, and the publishers' can't be reached from every machine; another network
    # would be another VPC, which is protected.
    kept = ("shopcat:chartMirror", "shopcat:chartDigests", "shopcat:vpc")
    others = {key: committed.get(key) for key in overlay if key not in kept}
    without = settings_file(simulated, tmp_path, others)
    preview = ["pulumi", "preview", "-s", "prod", "--json", "--show-sames"]
    plans = []
    for path in (simulated.directory / "Pulumi.prod.yaml", without):
        steps = json.loads(command(simulated, preview, PULUMI_OPTION_CONFIG_FILE=str(path)).stdout)["steps"]
        hosts = yaml.safe_load(path.read_text())["config"]
        # A host's records are named by it.
        names = {s["urn"]: s["urn"].replace(hosts["shopcat:previewDomain"], "<previews>") for s in steps}
        names = {urn: name.replace(hosts["shopcat:domain"], "<shop>") for urn, name in names.items()}
        plans.append({names[s["urn"]]: leaves(s["newState"].get("inputs", {})) for s in steps if "newState" in s})
    assert set(plans[0]) == set(plans[1])
    own = [str(leaf) for leaf in leaves(overlay).values()]
    # The zone is looked up by the domain, so its id goes with it.
    zones = aws(simulated, "route53").list_hosted_zones()["HostedZones"]
    own += [zone["Id"].rpartition("/")[2] for zone in zones]
    own += [digest for one in own for digest in re.findall(r"@sha256:[0-9a-f]{64}", one)]
    # An image's repository alone, as admission's rules and messages have it.
    repositories = [re.sub(r"(:[^:/]*)?@sha256:.*", "", one) for one in own if "@sha256:" in one[1:]]
    own += [*repositories, *(one.replace(".", "[.]") for one in repositories)]
    differing = 0
    for urn, inputs in plans[0].items():
        for path in {*inputs, *plans[1][urn]}:
            value, other = inputs.get(path), plans[1][urn].get(path)
            if path.startswith(".spec.egress[2].ports"):  # one more is open, to the endpoint's port
                continue
            if value != other and UNKNOWN not in (value, other):
                differing += 1
                assert any(one in str(value) for one in own), f"{urn} {path}: {value!r} / {other!r}"
    assert differing > 5


def test_no_secret_in_the_exported_state(simulated: Twin) -> None:
    state = command(simulated, ["pulumi", "stack", "export", "-s", "prod"]).stdout
    manager = aws(simulated, "secretsmanager")
    secrets = [
        json.loads(manager.get_secret_value(SecretId=entry["ARN"])["SecretString"])["password"]
        for entry in manager.list_secrets()["SecretList"]
        if entry["Name"] != "shopcat/login-blue"  # nothing was released into it
    ]
    assert len(secrets) == 3, "the master user's, the owner's and green's"
    for value in secrets:
        assert value not in state


def test_documented_destroy_leaves_only_what_must_stay(simulated: Twin, tmp_path: Path) -> None:
    """docs/destroy.md, step by step; last, since nothing is left after it."""
    changed = settings_file(simulated, tmp_path, {"shopcat:protection": False})
    command(simulated, UP, PULUMI_OPTION_CONFIG_FILE=str(changed))
    command(simulated, ["pulumi", "destroy", "-s", "prod", "--yes", "--skip-preview"])

    assert aws(simulated, "eks").list_clusters()["clusters"] == []
    assert aws(simulated, "elbv2").describe_load_balancers()["LoadBalancers"] == []
    assert aws(simulated, "elbv2").describe_target_groups()["TargetGroups"] == []
    assert aws(simulated, "rds").describe_db_instances()["DBInstances"] == []
    tag = [{"Name": "tag:shopcat:project", "Values": ["shopcat"]}]
    assert aws(simulated, "ec2").describe_vpcs(Filters=tag)["Vpcs"] == []
    gateways = aws(simulated, "ec2").describe_nat_gateways()["NatGateways"]
    assert [one for one in gateways if one["State"] != "deleted"] == []
    # What must stay: released images, the database's secrets, the release ledger, the database's last snapshot.
    names = [one["repositoryName"] for one in aws(simulated, "ecr").describe_repositories()["repositories"]]
    assert names == ["shopcat"]
    assert aws(simulated, "dynamodb").list_tables()["TableNames"] == ["shopcat-releases"]
    kept = [one["Name"] for one in aws(simulated, "secretsmanager").list_secrets()["SecretList"]]
    assert sorted(kept) == ["shopcat/application", "shopcat/login-blue", "shopcat/login-green"]
    snapshots = aws(simulated, "rds").describe_db_snapshots(SnapshotType="manual")["DBSnapshots"]
    (snapshot,) = snapshots
    assert snapshot["DBSnapshotIdentifier"].startswith("shopcat-final-")
    spaces = [one["metadata"]["name"] for one in kubectl(simulated, "get", "namespaces")["items"]]
    assert "shopcat" not in spaces
