"""Contents of a record, and the pods rendered from it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pulumi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import ShopCatError
from infra.names import APPLICATION_PORT, COLOURS, check_tag, colour_selector, login_secret
from infra.release.logins import job_name
from infra.release.manifests import SMOKE_SCRIPT, render_migration, render_pod_template, render_smoke
from infra.release.record import Login, Provenance, Record, assert_plain, fingerprint, template_differences, validated
from tests.unit.releases import DRAIN, digest, record, template

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def container(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("tag", ["v1.0.0", "1", "main-3f2a", "v1.0.0-rc.1"])
def test_tags_that_names_can_carry(tag: str) -> None:
    assert check_tag(tag) == tag


@pytest.mark.parametrize(
    "tag",
    ["latest", "", "V1", "v1_0", "-v1", "v1.", "v1..0", "v1--0", "x" * 41, "v1/2", "v1.-2", "v1-.2", "v1\n", "v1.0-"],
)
def test_other_tags_are_refused_with_a_reason(tag: str) -> None:
    with pytest.raises(ShopCatError, match=r"such as v1\.4\.0|a tag of its own"):
        check_tag(tag)


SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""k8s.io/apimachinery/pkg/util/validation, DNS1123SubdomainFmt."""


@settings(max_examples=1000)
@given(st.text("av09.-V_\n", max_size=42))
def test_a_tag_that_is_taken_names_objects(tag: str) -> None:
    try:
        check_tag(tag)
    except ShopCatError:
        return
    named = Record(tag, 999_999, template())
    login = Login(login_secret("blue"), "1", f"{named.name}-a999", closes_owner=True)
    secret = replace(named, login=login).secret_name
    for name in (secret, named.secret_name, job_name(login), f"migrate-{named.name}-a999", f"smoke-{named.name}-a999"):
        assert SUBDOMAIN.fullmatch(name)
        assert len(name) <= 63, "a Job's name is a label of its pods"
    assert re.fullmatch(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", tag), "docs.docker.com, docker image tag"


@pytest.mark.parametrize("tag", ["v1.-2", "v1-.2"])
def test_a_record_of_a_tag_that_was_allowed_stays_readable(tag: str) -> None:
    old = replace(record(), tag=tag)
    assert Record.from_json(old.to_json()) == old


OLD = (
    '{"provenance":{"commit":"","run":"","who":""},"revision":1,"tag":"v1.0.0","template":{"contracts":false,'
    '"cpu_millicores":200,"drain":{"app_drain_seconds":60,"grace_seconds":140,"pre_stop_seconds":70,'
    '"progress_deadline_seconds":130,"pulumi_timeout_seconds":190,"startup_seconds":60},"environment":'
    '{"DATABASE_POOL_SIZE":"5","DATABASE_SSLMODE":"require"},"image":"123456789012.dkr.ecr.eu-central-1.amazonaws.com/'
    'shopcat@sha256:0000000000000000000000000000000000000000000000000000000000000001","memory_mebibytes":384,"migrate":'
    '["python","-m","migrate"],"migrate_deadline_seconds":300,"replicas":2,"secret_id":"shopcat/application",'
    '"secret_version":"11111111-1111-1111-1111-111111111111","smoke_connect":"","smoke_image":"docker.io/curlimages/'
    'curl@sha256:00000000000000000000000000000000000000000000000000000000000003e7","smoke_url":""}}'
)
"""Record of the program before migrations had a size of their own."""


def test_an_older_record_makes_the_same_pods_as_before() -> None:
    """The fingerprints are what the program of that time made of it."""
    old = Record.from_json(OLD)
    pods = [
        make(old, colour)
        for make in (render_pod_template, render_migration, render_smoke)
        for colour in ("green", "blue")
    ]
    assert [fingerprint(pod) for pod in pods] == [
        "1057a3cde30e67cd",
        "de8a1d46d9a1450d",
        "fb6f5fa6ccd9e4e2",
        "b355b8c387b5a589",
        "6f5b3efb4a3bcc82",
        "99eb2309f07388ae",
    ]


def test_a_migration_has_the_resources_of_its_record() -> None:
    made = container(
        render_migration(record(migrate=("m",), migrate_memory_mebibytes=96, migrate_cpu_millicores=70), "blue")
    )
    assert made["resources"] == {"requests": {"cpu": "70m", "memory": "96Mi"}, "limits": {"memory": "96Mi"}}


def test_a_record_survives_the_ledger() -> None:
    before = Record("v1.0.0", 3, template(migrate=("python", "-m", "migrate")), Provenance("ann", "abc", "42"))
    assert Record.from_json(before.to_json()) == before


@settings(max_examples=2000)
@given(st.text("av1.-_A/\n", max_size=42))
def test_a_tag_is_what_an_object_of_kubernetes_may_be_called(tag: str) -> None:
    # kubernetes.io/docs/concepts/overview/working-with-objects/names (RFC 1123 subdomain), and single dashes alone.
    parts = tag.split(".")
    good = all(re.fullmatch("[a-z0-9]([a-z0-9-]*[a-z0-9])?", part) for part in parts) and "--" not in tag
    if good and len(tag) <= 40:
        assert check_tag(tag) == tag
    else:
        with pytest.raises(ShopCatError):
            check_tag(tag)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"tag":"v1"}'])
def test_a_record_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ShopCatError, match="can't read"):
        Record.from_json(text)


def test_a_record_of_a_newer_program_is_refused_not_guessed() -> None:
    raw = json.loads(record().to_json())
    raw["template"]["sidecar"] = "new"
    with pytest.raises(ShopCatError, match="sidecar"):
        Record.from_json(json.dumps(raw))


@pytest.mark.parametrize("image", ["shopcat:latest", "shopcat", "shopcat@sha256:123", "shopcat@md5:" + "0" * 64])
def test_an_image_without_a_digest_is_refused(image: str) -> None:
    with pytest.raises(ShopCatError, match="by digest"):
        validated(record(image=image))
    with pytest.raises(ShopCatError, match="by digest"):
        validated(record(smoke_image=image))


def test_no_output_enters_a_template() -> None:
    known_later: Any = pulumi.Output.from_input("db.example")
    with pytest.raises(ShopCatError, match=r"environment\.HOST is a Output; a release is made of plain values only"):
        render_pod_template(record(environment={"HOST": known_later}), "blue")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
)


@given(plain)
def test_plain_values_are_plain(value: object) -> None:
    assert_plain(value, "value")


@pytest.mark.parametrize("value", [1.5, {1: "a"}, [object()], {"a": {"b": {1}}}, b"bytes"])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ShopCatError, match="plain values only"):
        assert_plain(value, "value")


@pytest.mark.parametrize("colour", COLOURS)
def test_grace_is_pre_stop_and_drain_and_margin(colour: Any) -> None:
    pod = render_pod_template(record(), colour)
    sleep = container(pod)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert sleep == DRAIN.pre_stop_seconds
    assert pod["spec"]["terminationGracePeriodSeconds"] >= sleep + DRAIN.app_drain_seconds + 10


@pytest.mark.parametrize("colour", COLOURS)
def test_the_pod_runs_the_digest_as_nobody_special(colour: Any) -> None:
    pod = render_pod_template(record(number=7), colour)
    main = container(pod)
    assert main["image"].endswith(f"@{digest(7)}")
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert main["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert main["ports"] == [{"name": "http", "containerPort": APPLICATION_PORT}]
    assert pod["spec"]["topologySpreadConstraints"][0]["labelSelector"] == {"matchLabels": colour_selector(colour)}


def test_no_secret_value_is_in_a_pod() -> None:
    environment = {each["name"]: each for each in container(render_pod_template(record(), "blue"))["env"]}
    for name in ("DATABASE_HOST", "DATABASE_PORT", "DATABASE_NAME", "DATABASE_USER", "DATABASE_PASSWORD"):
        assert "value" not in environment[name]
        assert environment[name]["valueFrom"]["secretKeyRef"]["name"] == "shopcat-v1.0.0-r1"
    assert environment["SHOPCAT_RELEASE"]["value"] == "v1.0.0"
    assert environment["SHOPCAT_COLOUR"]["value"] == "blue"
    assert environment["DATABASE_POOL_SIZE"]["value"] == "5"


def test_equal_records_make_equal_pods_whoever_released_them() -> None:
    one = replace(record(), provenance=Provenance("ann", "abc", "1"))
    other = replace(record(), provenance=Provenance("bob", "def", "2"))
    assert render_pod_template(one, "green") == render_pod_template(other, "green")
    assert fingerprint(render_pod_template(one, "green")) == fingerprint(render_pod_template(other, "green"))
    assert fingerprint(render_pod_template(one, "green")) != fingerprint(render_pod_template(one, "blue"))


def test_differences_name_each_value() -> None:
    lines = template_differences(template(replicas=1, environment={"A": "2"}), template(environment={"A": "1"}))
    assert lines == ["environment.A: live '1', settings '2'", "replicas: live 2, settings 1"]
    assert template_differences(template(), template()) == []


def test_jobs_run_once_and_never_count_as_the_colours_pods() -> None:
    migration = render_migration(record(migrate=("migrate", "--all")), "green")
    assert container(migration)["command"] == ["migrate", "--all"]
    assert container(migration)["image"].endswith(digest(1))
    smoke = render_smoke(record(), "green")
    for pod in (migration, smoke):
        assert pod["spec"]["restartPolicy"] == "Never"
        assert not colour_selector("green").items() <= pod["metadata"]["labels"].items()
        assert "lifecycle" not in container(pod)
    assert {"name": "SERVICE_URL", "value": "http://shopcat-green.shopcat"} in container(smoke)["env"]


CURL = """#!/bin/sh
echo "$*" >> "$LOG"
case "$*" in
  *"::10.0.0.2:"*)
    echo >> "$LOG.second"
    [ "$(wc -l < "$LOG.second")" -gt "$LATE" ] || { [ -n "$FORMER" ] || exit 22; RELEASE="$FORMER"; };;
  *"$BROKEN") exit 22;;
esac
printf 'HTTP/1.1 200 OK\\r\\nX-ShopCat-Release: %s\\r\\n' "$RELEASE"
"""
GETENT = "#!/bin/sh\nprintf '10.0.0.1  STREAM lb\\n10.0.0.1  DGRAM\\n10.0.0.2  STREAM lb\\n10.0.0.2  DGRAM\\n'\n"


@pytest.fixture
def smoke(tmp_path: Path) -> Callable[..., tuple[int, list[str]]]:
    """Runs the smoke test with a curl of our own; its exit code and what was asked of the load balancer's nodes."""
    for name, text in (("curl", CURL), ("getent", GETENT), ("sleep", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    asked = tmp_path / "asked"

    def run(late: int = 0, patience: int = 30, broken: str = "nothing", former: str = "") -> tuple[int, list[str]]:
        given = {each["name"]: each["value"] for each in container(render_smoke(record(), "green"))["env"]}
        environment = {
            **given,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "LOG": str(asked),
            "LATE": str(late),
            "BROKEN": broken,
            "FORMER": former,
            "PUBLIC_URL": "https://shop.example",
            "LOAD_BALANCER": "lb",
            "PATIENCE_SECONDS": str(patience),
        }
        done = subprocess.run(["/bin/sh", "-c", SMOKE_SCRIPT], env=environment, check=False, capture_output=True)
        return done.returncode, [line for line in asked.read_text().splitlines() if "--connect-to" in line]

    return run


def test_the_smoke_test_asks_each_node_of_the_load_balancer(smoke: Callable[..., tuple[int, list[str]]]) -> None:
    code, asked = smoke()
    assert code == 0
    assert [sum(f"::{node}:" in line for line in asked) for node in ("10.0.0.1", "10.0.0.2")] == [6, 6]
    assert all("X-ShopCat-Colour: green" in line for line in asked)


def test_a_node_that_learns_of_the_targets_late_is_waited_for(smoke: Callable[..., tuple[int, list[str]]]) -> None:
    code, asked = smoke(late=4)
    assert code == 0
    assert sum("::10.0.0.2:" in line for line in asked) == 4 + 6


def test_a_node_that_still_asks_the_former_release_is_waited_for(smoke: Callable[..., tuple[int, list[str]]]) -> None:
    code, asked = smoke(late=4, former="v0.9.0")
    assert code == 0
    assert sum("::10.0.0.2:" in line for line in asked) == 4 + 6
    assert smoke(late=1000, former="v0.9.0", patience=0)[0] == 1


def test_a_node_that_never_does_fails_the_smoke_test(smoke: Callable[..., tuple[int, list[str]]]) -> None:
    assert smoke(late=1000, patience=0)[0] == 1


def test_the_service_has_no_second_try(smoke: Callable[..., tuple[int, list[str]]]) -> None:
    assert smoke(broken="http://shopcat-green.shopcat/") == (1, [])


def test_a_record_keeps_its_password_s_version_and_one_from_before_its_pods() -> None:
    login = Login(login_secret("blue"), "22222222-2222-5222-8222-222222222222", "v1.0.0-r1-a2", closes_owner=True)
    moved = replace(record(), login=login, renews="v0.9.0-r1")
    assert Record.from_json(moved.to_json()) == moved
    before = json.loads(record().to_json())
    del before["login"], before["renews"]
    read = Record.from_json(json.dumps(before))
    assert read == record()
    assert render_pod_template(read, "blue") == render_pod_template(record(), "blue")
    assert (read.secret_name, moved.secret_name) == ("shopcat-v1.0.0-r1", "shopcat-v1.0.0-r1-a2")
