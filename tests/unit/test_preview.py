"""What a preview is, and what keeps one from being opened."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from infra import capacity, settings
from infra.clients.aws import AwsClients
from infra.clients.kubernetes import cluster_of
from infra.errors import KubernetesUnreachableError, ShopCatError
from infra.names import CLUSTER_INFO_PARAMETER, PREVIEW_PRIORITY_CLASS, PREVIEW_SLOTS_TABLE
from infra.previews import cluster_info, isolation, manifests, preview, slots
from infra.previews.cluster_info import ClusterInfo
from infra.previews.slots import PreviewSlot
from infra.program import PREVIEW_SETTINGS
from infra.release.manifests import render_pod_template
from tests.unit.releases import run
from twin.plugins.aws import data
from twin.plugins.aws.kind import Aws

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
REGION = "eu-central-1"
DIGEST = "sha256:" + "a" * 64
MEDIA = "application/vnd.oci.image.manifest.v1+json"


def agreed(**changes: Any) -> ClusterInfo:
    values: dict[str, Any] = {
        "cluster": "shopcat",
        "cluster_endpoint": "https://api",
        "cluster_authority": "Q0E=",
        "region": REGION,
        "preview_domain": "previews.example.net",
        "vpc_id": "vpc-1",
        "load_balancer_cidrs": ("10.64.0.0/19",),
        "preview_listener_arn": "arn:listener",
        "preview_dns_name": "previews.elb.example.com",
        "preview_repository": "shopcat-preview",
        "preview_repository_url": "1.dkr.ecr.example.com/shopcat-preview",
        "release_repository": "shopcat",
        "priority_class": PREVIEW_PRIORITY_CLASS,
        "places_table": PREVIEW_SLOTS_TABLE,
        "previews": 3,
        "preview_role_id": "AROAPREVIEW",
        "secrets_role": "arn:aws:iam::123456789012:role/shopcat-preview-secrets",
    }
    return ClusterInfo(**{**values, **changes})


@pytest.fixture
def clients(mocked_aws: None) -> AwsClients:
    return AwsClients(REGION)


def given(**stack: Any) -> settings.PreviewSettings:
    return settings.read_preview(PREVIEW_SETTINGS, {"shopcat:tag": "abc123", **stack})[1]


def test_everything_but_the_tag_comes_from_the_committed_file() -> None:
    region, found = settings.read_preview(PREVIEW_SETTINGS, {"shopcat:tag": "abc123"})
    assert region == REGION
    assert found.tag == "abc123"
    assert found.drain.budget.pre_stop_seconds == 45, "less than in production: a closed preview waits for it"


def test_the_stacks_own_settings_stand_above_the_file() -> None:
    assert given(**{"shopcat:databasePoolSize": "2"}).database_pool_size == 2


def test_all_that_is_wrong_comes_in_one_message(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.pr.yaml"
    path.write_text("config: {'shopcat:nonsense': 1, 'other:thing': 2}")
    with pytest.raises(ShopCatError) as refused:
        settings.read_preview(path, {})
    text = str(refused.value)
    for word in ("aws:region", "other:thing", "shopcat:nonsense", "shopcat:tag", "shopcat:images", "shopcat:drain"):
        assert word in text, word


@pytest.mark.parametrize("tag", ["latest", "shopcat@sha256:abc", "shopcat:v1.0.0", "repo/shopcat"])
def test_only_a_plain_tag_of_the_previews_repository_is_taken(tag: str) -> None:
    with pytest.raises(ShopCatError, match="shopcat:tag"):
        given(**{"shopcat:tag": tag})


def test_a_preview_keeps_its_place_and_a_new_one_takes_the_lowest_free() -> None:
    taken = [PreviewSlot(1, "pr-1", NOW.isoformat()), PreviewSlot(3, "pr-3", NOW.isoformat())]
    assert slots.choose_slot(taken, "pr-3", 3, NOW + timedelta(days=1)) == taken[1]
    assert slots.choose_slot(taken, "pr-9", 3, NOW).number == 2


def test_one_too_many_is_refused_with_who_is_there_and_for_how_long() -> None:
    taken = [
        PreviewSlot(1, "pr-1", (NOW - timedelta(days=3, hours=4)).isoformat()),
        PreviewSlot(2, "pr-22", (NOW - timedelta(minutes=7)).isoformat()),
    ]
    with pytest.raises(ShopCatError) as refused:
        slots.choose_slot(taken, "pr-9", 2, NOW)
    text = str(refused.value)
    assert "pr-1, open for 3 d 4 h" in text
    assert "pr-22, open for 7 min" in text
    assert slots.choose_slot(taken, "pr-22", 2, NOW) == taken[1]


def test_the_places_are_read_back_as_they_were_written(clients: AwsClients) -> None:
    slot = PreviewSlot(2, "pr-7", NOW.isoformat())
    table = boto3.resource("dynamodb", region_name=REGION).create_table(
        TableName=PREVIEW_SLOTS_TABLE,
        KeySchema=[{"AttributeName": slots.SLOT_KEY, "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": slots.SLOT_KEY, "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    clients.get("dynamodb").put_item(TableName=table.name, Item=json.loads(slot.item()))
    assert slots.read_slots(clients, table.name) == [slot]


def test_of_two_that_write_the_same_place_one_is_refused(clients: AwsClients) -> None:
    aws = Aws({"region": REGION, "accessKey": "test", "secretKey": "test"})
    table = {
        "name": PREVIEW_SLOTS_TABLE,
        "billingMode": "PAY_PER_REQUEST",
        "hashKey": slots.SLOT_KEY,
        "attributes": [{"name": slots.SLOT_KEY, "type": "S"}],
    }
    data.Table().create(aws, table)
    first, second = (
        {
            "tableName": PREVIEW_SLOTS_TABLE,
            "hashKey": slots.SLOT_KEY,
            "item": PreviewSlot(1, stack, "x").item(),
        }
        for stack in ("pr-1", "pr-2")
    )
    data.TableItem().create(aws, first)
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        data.TableItem().create(aws, second)
    assert [slot.stack for slot in slots.read_slots(clients, PREVIEW_SLOTS_TABLE)] == ["pr-1"]
    data.TableItem().delete(aws, "", first)
    assert slots.read_slots(clients, PREVIEW_SLOTS_TABLE) == []


def test_without_production_there_is_one_clear_error(clients: AwsClients) -> None:
    with pytest.raises(ShopCatError, match="pulumi up -s prod"):
        cluster_info.read_cluster_info(clients)


def test_a_contract_of_another_version_is_refused_by_its_fields(clients: AwsClients) -> None:
    text = agreed().model_copy(update={"region": "x"}).model_dump(mode="json", by_alias=True)
    del text["vpcId"]
    clients.get("ssm").put_parameter(Name=CLUSTER_INFO_PARAMETER, Type="String", Value=json.dumps(text))
    with pytest.raises(ShopCatError, match="vpcId"):
        cluster_info.read_cluster_info(clients)


def test_the_contract_is_read_as_it_was_published(clients: AwsClients) -> None:
    text = agreed().model_dump_json(by_alias=True)
    clients.get("ssm").put_parameter(Name=CLUSTER_INFO_PARAMETER, Type="String", Value=text)
    assert cluster_info.read_cluster_info(clients) == agreed()


def test_address_and_authority_are_all_that_is_taken_from_the_kubeconfig() -> None:
    text = json.dumps(
        {
            "clusters": [{"cluster": {"server": "https://api", "certificate-authority-data": "Q0E="}}],
            "users": [{"user": {"token": "secret"}}],
        }
    )
    assert cluster_of(text) == {"server": "https://api", "authority": "Q0E="}
    with pytest.raises(ShopCatError):
        cluster_of("{}")


def test_an_image_that_is_not_pushed_is_refused_with_the_command(clients: AwsClients) -> None:
    clients.get("ecr").create_repository(repositoryName="shopcat-preview")
    with pytest.raises(ShopCatError, match=r"docker push 1\.dkr\.ecr\.example\.com/shopcat-preview:abc123"):
        preview.preview_image(clients, agreed(), "abc123")


def test_an_image_is_known_by_digest(clients: AwsClients) -> None:
    ecr = clients.get("ecr")
    ecr.create_repository(repositoryName="shopcat-preview")
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MEDIA, "config": {"digest": DIGEST}, "layers": []})
    ecr.put_image(repositoryName="shopcat-preview", imageManifest=manifest, imageTag="abc123")
    pushed = ecr.describe_images(repositoryName="shopcat-preview")["imageDetails"][0]["imageDigest"]
    assert preview.preview_image(clients, agreed(), "abc123") == f"1.dkr.ecr.example.com/shopcat-preview@{pushed}"


class Cluster:
    """Answers as told: `.` lets us in, `x` doesn't (yet)."""

    def __init__(self, answers: str) -> None:
        self.answers = iter(answers)

    def get(self, path: str) -> None:
        assert path == "/api/v1/namespaces/pr-1/resourcequotas/preview"
        if next(self.answers) == "x":
            raise KubernetesUnreachableError("forbidden")


def test_the_namespace_is_entered_once_every_api_server_seems_to_know() -> None:
    cluster = Cluster("xx.x..x...")
    run(preview.granted(lambda: cluster, "pr-1", pause_seconds=0))  # type: ignore[arg-type, return-value]
    assert next(cluster.answers, None) is None


def test_who_is_never_let_in_hears_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "GRANT_SECONDS", -1)
    with pytest.raises(KubernetesUnreachableError, match="forbidden"):
        run(preview.granted(lambda: Cluster("x"), "pr-1"))  # type: ignore[arg-type, return-value]


def test_productions_repository_is_refused(clients: AwsClients) -> None:
    found = agreed(preview_repository="shopcat", preview_repository_url="1.dkr.ecr.example.com/shopcat")
    with pytest.raises(ShopCatError, match="never run"):
        preview.preview_image(clients, found, "abc123")


def test_the_secret_gets_a_value_once(clients: AwsClients) -> None:
    manager = clients.get("secretsmanager")
    manager.create_secret(Name="shopcat-preview/pr-1/database")
    values = []
    for _ in range(2):
        preview.ensure_secret(clients, "shopcat-preview/pr-1/database")
        values.append(manager.get_secret_value(SecretId="shopcat-preview/pr-1/database")["SecretString"])
    assert values[0] == values[1]
    assert len(json.loads(values[0])["password"]) == preview.PREVIEW_PASSWORD_LENGTH


def pod(tag: str = "abc123") -> dict[str, Any]:
    made = manifests.record(
        given(**{"shopcat:tag": tag}), f"r/shopcat-preview@{DIGEST}", "https://pr-1.preview.example"
    )
    return manifests.application_pod(made, PREVIEW_PRIORITY_CLASS)


def test_the_application_lives_by_the_same_waits_and_probes_as_in_production() -> None:
    made = manifests.record(given(), f"r/shopcat-preview@{DIGEST}", "https://pr-1.preview.example")
    there, here = render_pod_template(made, "blue")["spec"], pod()["spec"]
    assert here["terminationGracePeriodSeconds"] == there["terminationGracePeriodSeconds"] == 125
    for key in ("lifecycle", "readinessProbe", "livenessProbe", "startupProbe", "securityContext"):
        assert here["containers"][0][key] == there["containers"][0][key]


def test_nothing_of_production_is_left_in_the_applications_pod() -> None:
    found = pod()
    assert found["spec"]["priorityClassName"] == PREVIEW_PRIORITY_CLASS
    assert "topologySpreadConstraints" not in found["spec"]
    assert "shopcat/colour" not in found["metadata"]["labels"]
    variables = found["spec"]["containers"][0]["env"]
    assert "SHOPCAT_COLOUR" not in [one["name"] for one in variables]
    secrets = {one["valueFrom"]["secretKeyRef"]["name"] for one in variables if "valueFrom" in one}
    assert secrets == {"shopcat"}


def test_both_pods_are_restricted_and_as_large_as_the_capacity_plan_counts() -> None:
    database = manifests.database_pod(f"r/postgres@{DIGEST}", PREVIEW_PRIORITY_CLASS)
    for found, size in ((pod(), capacity.PREVIEW_APPLICATION), (database, capacity.PREVIEW_DATABASE)):
        spec = found["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        (container,) = spec["containers"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        bounded = {"memory": f"{size.memory_mebibytes}Mi", "ephemeral-storage": f"{size.disk_mebibytes}Mi"}
        assert container["resources"] == {"requests": {"cpu": f"{size.cpu_millicores}m", **bounded}, "limits": bounded}
        volumes = [int(one["emptyDir"]["sizeLimit"].removesuffix("Mi")) for one in spec["volumes"]]
        assert sum(volumes) < size.disk_mebibytes, "logs and the container's own layer need some too"


def test_previews_yield_to_production() -> None:
    from infra.release.blue_green import SHOP_PRIORITY

    assert 0 < isolation.PREVIEW_PRIORITY < SHOP_PRIORITY


def test_only_the_load_balancer_reaches_the_application_and_only_it_the_database() -> None:
    policies = isolation.preview_network_policies(["10.64.0.0/19"])
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    (inward,) = policies["shopcat"]["ingress"]
    assert inward["from"] == [{"ipBlock": {"cidr": "10.64.0.0/19"}}]
    (inward,) = policies["database"]["ingress"]
    assert inward["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "shopcat"}}}]
    assert "egress" not in policies["database"]


def test_a_preview_counted_by_capacity_leaves_room_for_one_update() -> None:
    production = capacity.ProductionDemand(2, capacity.PodRequest(200, 384), 5, 112)
    plan = capacity.plan(production)
    used = plan.previews * (capacity.PREVIEW_APPLICATION.memory_mebibytes + capacity.PREVIEW_DATABASE.memory_mebibytes)
    whole = capacity.NODES * production.node.memory_mebibytes
    assert plan.memory_mebibytes + used + capacity.PREVIEW_APPLICATION.memory_mebibytes <= whole
    assert plan.pods + 2 * plan.previews + 1 <= capacity.NODES * production.node.pod_slots
