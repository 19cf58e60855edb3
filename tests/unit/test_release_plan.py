"""What preflight reads and refuses, on moto; and the Kubernetes client against a small HTTPS server."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from infra.clients import kubernetes as kubernetes_client
from infra.clients.aws import AwsClients
from infra.errors import ShopCatError
from infra.foundation.secret_versions import restored_version
from infra.names import APPLICATION_PORT
from infra.release import plan as release_plan
from infra.release import traffic_shift
from infra.release.ledger import Ledger, table_definition
from infra.release.plan import Plan
from infra.release.reads import template_of
from infra.release.state import LedgerState
from infra.settings import Settings, read_settings
from tests.unit.releases import REGION, SESSION, TABLE, client, digest
from tests.unit.test_settings import committed
from tests.unit.test_traffic import Balancer

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json"})


def test_what_says_nothing_without_a_migration_is_no_difference() -> None:
    """Otherwise a program that knows more settings would release what is live once more."""
    view: Any = SimpleNamespace(dns_name="lb")
    asked = settings(release={"migrateDeadline": 900})
    made = template_of(asked, view, f"shopcat@{digest(1)}", "1")
    assert (made.migrate_deadline_seconds, made.migrate_memory_mebibytes) == (300, 64)
    asked = settings(release={"migrate": ["m"], "migrateMemory": "1Gi", "migrateDeadline": 900})
    made = template_of(asked, view, f"shopcat@{digest(1)}", "1")
    assert (made.migrate, made.migrate_deadline_seconds, made.migrate_memory_mebibytes) == (("m",), 900, 1024)
    assert made.migrate_cpu_millicores == made.cpu_millicores


def settings(**changes: Any) -> Settings:
    return read_settings(committed(**changes))


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsClients]:
    monkeypatch.setattr("infra.clients.aws.boto3.session.Session", lambda **_: SESSION)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        yield AwsClients(REGION)


def bootstrap() -> None:
    client("dynamodb").create_table(**table_definition(TABLE))
    Ledger(client("dynamodb"), TABLE).initialise()


def push(tag: str, number: int = 1) -> str:
    # Without layers moto draws the image's digest out of a hundred.
    layer = {"digest": digest(number)}
    manifest = {**json.loads(MANIFEST), "config": layer, "layers": [layer]}
    image = client("ecr").put_image(repositoryName="shopcat", imageManifest=json.dumps(manifest), imageTag=tag)
    return str(image["image"]["imageId"]["imageDigest"])


@pytest.fixture
def platform(aws: AwsClients) -> AwsClients:
    bootstrap()
    client("ecr").create_repository(repositoryName="shopcat", imageTagMutability="IMMUTABLE")
    client("secretsmanager").create_secret(Name="shopcat/application", SecretString="{}")
    Balancer()
    return aws


def read(clients: AwsClients, **changes: Any) -> Plan:
    return release_plan.make_plan(settings(**changes), clients, {})


def refused(clients: AwsClients, words: str, **changes: Any) -> None:
    with pytest.raises(ShopCatError, match=words) as caught:
        read(clients, **changes)
    assert "Traceback" not in str(caught.value)


def release(clients: AwsClients, **changes: Any) -> Plan:
    plan = read(clients, **changes)
    plan.session.take()
    plan.session.go_live()
    return plan


def test_an_empty_account_gets_the_platform_and_is_told_what_to_push_where(aws: AwsClients) -> None:
    bootstrap()
    plan = read(aws)
    assert plan.decision.action == "platform"
    assert plan.colours == {}
    assert any(
        "push an image to 123456789012.dkr.ecr.eu-central-1.amazonaws.com/shopcat:v1.0.0" in n for n in plan.notes
    )


def test_a_release_before_the_platform_is_refused(aws: AwsClients) -> None:
    bootstrap()
    refused(aws, "bring the platform up first", tag="v1.0.0")


def test_the_first_release_is_known_by_digest_and_secret_version(platform: AwsClients) -> None:
    pushed = push("v1.0.0")
    plan = read(platform, tag="v1.0.0")
    green = plan.colours["green"]
    assert green.record.digest == pushed
    assert green.replicas == 2
    assert green.record.template.secret_version
    assert plan.colours["blue"].replicas == 0
    assert plan.colours["blue"].changes_last
    assert "arn:aws" in green.record.provenance.who
    assert str(APPLICATION_PORT) not in green.record.template.environment.values()


def test_the_image_and_what_is_printed_are_of_the_repository_of_the_settings(platform: AwsClients) -> None:
    named = {"registry": {"repository": "shop/shopcat"}}
    push("v1.0.0")
    refused(platform, "there is no ECR repository shop/shopcat yet", tag="v1.0.0", **named)
    client("ecr").create_repository(repositoryName="shop/shopcat")
    refused(platform, r"tag v1\.0\.0 is not in .*/shop/shopcat; it has: no image at all", tag="v1.0.0", **named)
    assert any(
        "push an image to 123456789012.dkr.ecr.eu-central-1.amazonaws.com/shop/shopcat:v1.0.0" in note
        for note in read(platform, **named).notes
    )
    manifest = {**json.loads(MANIFEST), "config": {"digest": digest(7)}}
    client("ecr").put_image(repositoryName="shop/shopcat", imageManifest=json.dumps(manifest), imageTag="v1.0.0")
    image = read(platform, tag="v1.0.0", **named).colours["green"].record.template.image
    assert image.startswith("123456789012.dkr.ecr.eu-central-1.amazonaws.com/shop/shopcat@sha256:")


def test_a_tag_that_is_absent_is_refused_with_what_is_there(platform: AwsClients) -> None:
    push("v0.9.0")
    refused(platform, r"tag v1\.0\.0 is not in .*/shopcat; it has: v0\.9\.0\. Push it first", tag="v1.0.0")


def lead_to(**version: str) -> None:
    """Make a version of the application's secret the current one."""
    client("secretsmanager").put_secret_value(SecretId="shopcat/application", SecretString="{}", **version)


def test_a_release_and_a_rollback_keep_to_the_database_of_the_settings(platform: AwsClients) -> None:
    """A release that came in while a restored database is tried would move everybody to it; a rollback would lose what is new."""
    at = {"at": "2026-11-29T10:00:00Z"}
    serving, standing = {"database": {"restore": {**at, "serves": True}}}, {"database": {"restore": at}}
    push("v1.0.0", 1)
    push("v1.1.0", 2)
    release(platform, tag="v1.0.0")
    refused(
        platform,
        "leads to the first database, and the settings want the database shopcat-restored",
        tag="v1.1.0",
        **serving,
    )
    lead_to(ClientRequestToken=restored_version("shopcat-restored"))
    refused(platform, "leads to the database shopcat-restored, .* want the first", tag="v1.1.0")
    refused(platform, "leads to the database shopcat-restored, .* want the first", tag="v1.1.0", **standing)
    assert read(platform).decision.action == "stay"
    same = release(platform, tag="v1.0.0", acceptUnserved="v1.0.0", **serving)
    assert same.decision.open is not None
    assert same.decision.open.name == "v1.0.0-r2", "the same image, and the other database"
    back = {"rollback": "v1.0.0-r2->v1.0.0-r1"}
    refused(
        platform,
        "v1.0.0-r1 would bring its users to the first database, and the settings want the database shopcat-restored",
        **serving,
        **back,
    )
    lead_to()
    record = read(platform, **standing, **back).decision.record
    assert record is not None
    assert record.name == "v1.0.0-r1"
    for wanted in ({}, {"tag": "v1.1.0"}, back):
        refused(platform, "live v1.0.0-r2 uses the database shopcat-restored, and .*is not set", **wanted)


def test_a_restored_database_that_became_the_only_one_is_released_on(platform: AwsClients) -> None:
    at = {"at": "2026-11-29T10:00:00Z", "serves": True}
    push("v1.0.0", 1)
    push("v1.1.0", 2)
    release(platform, tag="v1.0.0")
    lead_to(ClientRequestToken=restored_version("shopcat-restored"))
    release(platform, tag="v1.0.0", acceptUnserved="v1.0.0", database={"restore": at})
    only = {"database": {"identifier": "shopcat-restored"}}
    refused(platform, "live v1.0.0-r2 uses the database shopcat-restored")
    assert read(platform, **only).decision.action == "stay"
    assert read(platform, tag="v1.1.0", acceptUnserved="v1.0.0", **only).decision.action == "release"


def test_an_open_release_on_a_restored_database_goes_on_only_by_its_settings(platform: AwsClients) -> None:
    """A drill holds one: a plain update, a person's or a workflow's, must not bring users to it."""
    push("v1.0.0", 1)
    release(platform, tag="v1.0.0")
    lead_to(ClientRequestToken=restored_version("shopcat-restored"))
    at = {"at": "2026-11-29T10:00:00Z"}
    serving, standing = {"database": {"restore": {**at, "serves": True}}}, {"database": {"restore": at}}
    read(platform, tag="v1.0.0", acceptUnserved="v1.0.0", **serving).session.take()
    for settings_meanwhile in ({}, standing):
        refused(platform, "v1.0.0-r2 would bring its users to the database shopcat-restored", **settings_meanwhile)
        assert read(platform, abort="v1.0.0", **settings_meanwhile).decision.action == "abort"
    assert read(platform, **serving).decision.action == "resume"


def test_a_used_tag_is_refused_in_preview(platform: AwsClients) -> None:
    push("v1.0.0", 1)
    push("v1.1.0", 2)
    release(platform, tag="v1.0.0")
    release(platform, tag="v1.1.0", acceptUnserved="v1.0.0")
    refused(platform, "was released before", tag="v1.0.0")


@pytest.fixture
def deployments() -> list[dict[str, Any]]:
    """The live colour's Deployment, if there is one."""
    return []


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, deployments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The live colour's pods, for the preflight's one question to Kubernetes."""
    pods: list[dict[str, Any]] = []

    class Cluster:
        def pods(self, *_: Any) -> list[dict[str, Any]]:
            return pods

        def release_objects(self, _: str) -> dict[str, Any]:
            return {}

        def deployment(self, *_: Any) -> dict[str, Any] | None:
            return deployments[0] if deployments else None

    monkeypatch.setattr(kubernetes_client, "from_eks", lambda *_: Cluster())
    return pods


def test_a_live_colour_that_is_not_whole_stops_a_release(
    platform: AwsClients, no_cluster: list[dict[str, Any]]
) -> None:
    push("v1.0.0", 1)
    push("v1.1.0", 2)
    release(platform, tag="v1.0.0")
    no_cluster.append(
        {
            "metadata": {"name": "shopcat-green-1"},
            "status": {"podIP": "10.0.0.9", "conditions": [{"type": "Ready", "status": "True"}]},
        }
    )
    refused(platform, "pod shopcat-green-1 is ready but no healthy target.*acceptUnserved=v1.0.0-r1", tag="v1.1.0")
    assert read(platform, tag="v1.1.0", acceptUnserved="v1.0.0").decision.action == "release"
    assert read(platform).decision.action == "stay", "only a release is refused"


@pytest.mark.parametrize("replicas", [0, 1, 2, 3])
def test_no_release_starts_upon_a_live_colour_that_somebody_scaled_down(
    platform: AwsClients, deployments: list[dict[str, Any]], replicas: int
) -> None:
    push("v1.0.0", 1)
    push("v1.1.0", 2)
    release(platform, tag="v1.0.0")
    deployments.append({"spec": {"replicas": replicas}})
    if replicas < 2:
        refused(platform, f"asks for {replicas} pods instead of 2.*A plain pulumi up -s prod puts back", tag="v1.1.0")
        assert read(platform, tag="v1.1.0", acceptUnserved="v1.0.0").decision.action == "release"
    else:
        assert read(platform, tag="v1.1.0").decision.action == "release"
    assert read(platform).decision.action == "stay", "only a release is refused"


@pytest.mark.parametrize("dns", ["route53", "external"])
def test_requests_of_our_own_go_to_our_load_balancer_where_the_name_may_lead_elsewhere(
    platform: AwsClients, dns: str
) -> None:
    (balancer,) = client("elbv2").describe_load_balancers()["LoadBalancers"]
    assert read(platform, dns=dns).probe_address == (balancer["DNSName"] if dns == "external" else "")


def test_weights_that_say_otherwise_are_told_and_put_right(platform: AwsClients) -> None:
    push("v1.0.0")
    release(platform, tag="v1.0.0")
    plan = read(platform)  # nobody has moved anything to green here
    assert plan.decision.action == "stay"
    assert plan.is_traffic_misplaced
    assert any("blue 100 / green 0; this update puts everything back on green" in note for note in plan.notes)
    elb = client("elbv2")
    view = traffic_shift.Traffic(platform, "shopcat").view()
    for rule in view.rules:
        tuples = [{"TargetGroupArn": view.groups[one], "Weight": 100 if one == "green" else 0} for one in view.groups]
        elb.modify_rule(RuleArn=rule.arn, Actions=[{"Type": "forward", "ForwardConfig": {"TargetGroups": tuples}}])
    assert not read(platform).is_traffic_misplaced


def test_what_is_open_is_gone_on_with_though_the_load_balancer_is_gone(platform: AwsClients) -> None:
    push("v1.0.0")
    push("v1.1.0", 2)
    release(platform, tag="v1.0.0")
    read(platform, tag="v1.1.0").session.take()
    elb = client("elbv2")
    for balancer in elb.describe_load_balancers()["LoadBalancers"]:
        elb.delete_load_balancer(LoadBalancerArn=balancer["LoadBalancerArn"])
    assert read(platform).decision.action == "resume"
    assert read(platform, abort="v1.1.0").decision.action == "abort"
    read(platform, abort="v1.1.0").session.abort()
    assert read(platform).is_traffic_misplaced, "its rule will be made with everything on blue"
    refused(platform, "bring the platform up first", tag="v1.1.0")


def test_a_rollback_to_an_image_that_is_gone_is_refused_before_anything_is_claimed(platform: AwsClients) -> None:
    gone = push("v1.0.0")
    push("v1.1.0", 2)
    release(platform, tag="v1.0.0")
    release(platform, tag="v1.1.0")
    assert read(platform, rollback="v1.1.0->v1.0.0").decision.action == "release"
    client("ecr").batch_delete_image(repositoryName="shopcat", imageIds=[{"imageDigest": gone}])
    refused(platform, f"{gone} is no longer in ECR repository shopcat", rollback="v1.1.0->v1.0.0")


def test_other_settings_do_not_touch_what_is_live_and_are_told(platform: AwsClients) -> None:
    push("v1.0.0")
    before = release(platform, tag="v1.0.0").colours["green"].record
    plan = read(platform, release={"memory": "400Mi"})
    assert plan.colours["green"].record == before
    assert any("settings differ from live v1.0.0-r1: memory_mebibytes: live 384, settings 400" in n for n in plan.notes)


def test_drain_numbers_that_the_live_release_does_not_fit_are_refused_but_not_to_an_abort(platform: AwsClients) -> None:
    push("v1.0.0")
    push("v1.1.0", 2)
    release(platform, tag="v1.0.0")
    short = {"propagation": 15, "deregistrationDelay": 45}
    words = r"v1\.0\.0-r1: propagation .*, but 75 s <= 45 s is false: .*deregistrationDelay to at least 75"
    refused(platform, words, drain=short)
    refused(platform, words, drain=short, tag="v1.1.0")
    read(platform, tag="v1.1.0").session.take()
    refused(platform, words, drain=short)
    assert read(platform, drain=short, abort="v1.1.0").decision.action == "abort"


def test_a_rollback_is_told_what_does_not_fit(platform: AwsClients) -> None:
    push("v1.0.0")
    push("v1.1.0", 2)
    release(platform, tag="v1.0.0")
    release(platform, tag="v1.1.0", drain={"propagation": 15, "deregistrationDelay": 75})
    plan = read(platform, rollback="v1.1.0->v1.0.0", drain={"propagation": 15, "deregistrationDelay": 45})
    assert plan.decision.action == "release"
    assert any("v1.0.0-r1: propagation + longestRequest <= deregistrationDelay" in note for note in plan.notes)


def test_a_rotated_master_or_a_second_read_differs_in_nothing(platform: AwsClients) -> None:
    push("v1.0.0")
    release(platform, tag="v1.0.0")
    plans = [read(platform), read(platform)]
    assert plans[0].colours == plans[1].colours
    assert plans[0].pointer == plans[1].pointer
    assert not any("differ" in note for note in plans[0].notes)


def test_no_table_is_refused(aws: AwsClients) -> None:
    refused(aws, "make bootstrap")


def test_an_empty_ledger_beside_target_groups_is_unknown(aws: AwsClients) -> None:
    client("dynamodb").create_table(**table_definition(TABLE))
    Balancer()
    refused(aws, "is empty although target groups of ours exist")


def test_no_credentials_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(ShopCatError, match="no usable AWS credentials"):
        release_plan.make_plan(settings(), AwsClients(REGION), {})


def test_an_unknown_profile_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ShopCatError, match="no usable AWS credentials"):
        release_plan.make_plan(settings(), AwsClients(REGION), {})


def test_an_endpoint_that_is_down_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr("infra.clients.aws.ATTEMPTS", 1)
    clients = AwsClients(REGION, endpoint_url="http://127.0.0.1:1")
    with pytest.raises(
        ShopCatError, match=r"http://127\.0\.0\.1:1 can't be reached .*check the network and shopcat:awsEnd"
    ):
        release_plan.make_plan(settings(), clients, {})


def test_github_says_who_and_what(platform: AwsClients) -> None:
    push("v1.0.0")
    environment = {"GITHUB_ACTOR": "ann", "GITHUB_SHA": "abc", "GITHUB_RUN_ID": "42", "GITHUB_REPOSITORY": "shop/cat"}
    environment["SHOPCAT_AFTER"] = "nothing"
    record = release_plan.make_plan(settings(tag="v1.0.0"), platform, environment).colours["green"].record
    assert record.provenance.who == "ann"
    assert record.provenance.commit == "abc"
    assert record.provenance.after == "nothing"
    assert record.provenance.run == "https://github.com/shop/cat/actions/runs/42"


def test_a_state_without_releases_declares_no_colour() -> None:
    from infra.release.decide import Nothing, decide

    state = LedgerState(version=1)
    assert release_plan._colours(decide(Nothing(), state), state) == {}


# The Kubernetes client


def test_an_eks_token_is_a_presigned_request_that_names_the_cluster(aws: AwsClients) -> None:
    token = kubernetes_client.eks_token(aws, "shopcat")
    assert token.startswith("k8s-aws-v1.")
    encoded = token.removeprefix("k8s-aws-v1.")
    url = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    assert "Action=GetCallerIdentity" in url
    assert "x-k8s-aws-id" in url, "the header is signed"
    assert f"sts.{REGION}.amazonaws.com" in url


def test_no_cluster_yet_is_none(aws: AwsClients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    assert kubernetes_client.from_eks(AwsClients(REGION), "shopcat") is None


def test_the_client_reads_objects_and_tells_absence_from_trouble() -> None:
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    seen = []

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers["Authorization"]))
            answers = {"/api/v1/namespaces/shopcat/pods": (200, {"items": [{"kind": "Pod"}]}), "/absent": (404, {})}
            status, body = answers.get(self.path.partition("?")[0], (403, {"message": "forbidden"}))
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        api = kubernetes_client.KubernetesClient(
            address, kubernetes_client._tls_context(None), lambda: "token", name="shopcat"
        )
        assert api.pods("shopcat", {"a": "b", "c": "d"}) == [{"kind": "Pod"}]
        assert seen[-1] == ("/api/v1/namespaces/shopcat/pods?labelSelector=a%3Db%2Cc%3Dd", "Bearer token")
        assert api.get("/absent") is None
        with pytest.raises(ShopCatError, match="answered 403 to GET /forbidden"):
            api.get("/forbidden")
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(ShopCatError, match=r"can't be reached.*apiAccess"):
        api.get("/version")


def test_a_denied_read_is_explained(platform: AwsClients) -> None:
    class DeniedRegistry:
        def describe_repositories(self, **_: Any) -> None:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "DescribeRepositories")

    platform.get("ecr")
    platform._clients["ecr"] = DeniedRegistry()
    refused(platform, "ECR repository shopcat: .*AccessDenied", tag="v1.0.0")
