"""Settings: the committed file is good, and what is wrong comes out as one message with a line for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra import settings
from infra.errors import ShopCatError
from infra.settings import stack_file

COMMITTED = Path(__file__).parents[2] / "Pulumi.prod.yaml"
PREVIEWS = COMMITTED.parent / "Pulumi.pr.yaml"


def committed(**changes: Any) -> dict[str, Any]:
    config = stack_file.read_stack_file(COMMITTED)["config"]
    values = {key.partition(":")[2]: value for key, value in config.items() if key.startswith("shopcat:")}
    return {key: value for key, value in {**values, **changes}.items() if value is not None}


def refusal(**changes: Any) -> str:
    with pytest.raises(ShopCatError) as refused:
        settings.read_settings(committed(**changes))
    return str(refused.value)


def existing(**changes: Any) -> dict[str, Any]:
    return {
        "existing": {
            "kubeconfig": "{}",
            "vpcId": "vpc-0123456789abcdef0",
            "vpcCidr": "10.0.0.0/16",
            "publicSubnetIds": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
            "previewSubnetIds": ["subnet-0123456789abcdef4", "subnet-0123456789abcdef5"],
            "privateSubnetIds": ["subnet-0123456789abcdef2", "subnet-0123456789abcdef3"],
            "securityGroupId": "sg-0123456789abcdef0",
            "natAddresses": ["203.0.113.7"],
            **changes,
        }
    }


def test_the_committed_stack_file_is_valid_and_asks_for_no_release() -> None:
    found = settings.read_settings(committed())
    assert (found.tag, found.abort, found.rollback, found.rotate) == ("", "", "", "")
    assert found.drain.budget.app_drain_seconds == 60
    assert found.database.max_connections == 112


def test_an_existing_cluster_is_valid() -> None:
    assert settings.read_settings(committed(cluster=existing())).cluster.existing is not None


def test_everything_that_is_wrong_is_in_one_message() -> None:
    text = refusal(nonsense="1", apiAccess=None, domain="no host", release={"cpu": "lots"}, drain={"appDrain": 20})
    for words in ("shopcat:nonsense: unknown", "shopcat:apiAccess: missing", "no host", "lots", "appDrain"):
        assert words in text
    assert len(text.splitlines()) >= 6


LONG = f"{'a' * 53}.example.com"
"""One octet longer than a certificate's name may be."""
LONG_PREVIEWS = f"{'a' * 51}.example.net"
"""One octet longer than `*.` leaves in it."""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"apiAccess": None}, ["public", "cidrs", "private"]),
        ({"apiAccess": "cidrs"}, ["apiAccessCidrs", "at least one"]),
        ({"apiAccessCidrs": ["10.0.0.0/8"]}, ["apiAccess is public"]),
        ({"drain": {"appDrain": 20, "longestRequest": 30}}, ["appDrain", "20", "31"]),
        ({"release": {"replicas": 9}}, ["replicas", "t3.medium"]),
        ({"images": {"database": "postgres:16", "smoke": "curl"}}, ["postgres:16", "sha256"]),
        ({"chartDigests": None}, ["chartDigests: missing"]),
        (
            {"chartDigests": {"loadBalancerController": "3.5.0", "externalSecrets": "a" * 64}},
            ["chartDigests.loadBalancerController", "sha256:<64 hex digits>"],
        ),
        ({"vpc": {"zones": ["a", "a"]}}, ["vpc.zones", "two different"]),
        ({"vpc": {"zones": ["a"]}}, ["vpc.zones", "at least 2"]),
        ({"vpc": {"zones": ["eu-central-1a", "b"]}}, ["vpc.zones"]),
        ({"cluster": {"addonVersions": {"ebs": "1"}}}, ["ebs"]),
        ({"cluster": {"addonVersions": {"ebs": "v1.0.0-eksbuild.1"}}}, ["ebs", "no such managed add-on"]),
        ({"github": {"repository": "shopcat"}}, ["<owner>/<name>"]),
        ({"tag": "v1", "abort": "v1"}, ["one of them at a time"]),
        # Networks
        ({"adminCidrs": ["10.0.0.1/8"]}, ["adminCidrs", "not a network"]),
        ({"adminCidrs": ["2001:db8::/32"]}, ["adminCidrs", "not a network"]),
        ({"vpc": {"cidr": "10.0.0.0/8"}}, ["/16 and /20"]),
        ({"vpc": {"cidr": "2001:db8::/56"}}, ["vpc.cidr", "not a network"]),
        ({"vpc": {"cidr": "10.64.0.0/255.255.0.0"}}, ["vpc.cidr", "write 10.64.0.0/16"]),
        ({"vpc": {"cidr": "10.64.0.0/0.0.255.255"}}, ["vpc.cidr", "write 10.64.0.0/16"]),
        ({"vpc": {"cidr": "127.0.0.0/16"}}, ["vpc.cidr", "not private"]),
        ({"apiAccess": "cidrs", "apiAccessCidrs": ["10.0.0.0/8"]}, ["apiAccessCidrs", "reserved"]),
        ({"apiAccess": "cidrs", "apiAccessCidrs": [f"203.0.113.{n}/32" for n in range(41)]}, ["40"]),
        # Names
        ({"domain": "192.0.2.1"}, ["domain", "not a host name"]),
        ({"domain": "shop.-x"}, ["domain", "not a host name"]),
        ({"domain": "-shop.example.com"}, ["domain", "not a host name"]),
        ({"domain": "shop-.example.com"}, ["domain", "not a host name"]),
        ({"domain": "shop.example.c-"}, ["domain", "not a host name"]),
        ({"domain": "Shop.example.com"}, ["domain", "not a host name"]),
        ({"domain": LONG}, ["domain", "has 65 characters, the most is 64", "certificate"]),
        ({"previewDomain": LONG_PREVIEWS}, ["previewDomain", "has 63 characters, the most is 62", "certificate"]),
        ({"previewDomain": None}, ["previewDomain: missing", "has no default", "another registration"]),
        ({"previewDomain": "shop.example.com"}, ["previewDomain", "would be the shop's too"]),
        ({"previewDomain": "example.com", "previewDomainShared": True}, ["previewDomain", "would be the shop's too"]),
        (
            {"previewDomain": "preview.shop.example.com"},
            ["previewDomain", "one site (example.com)", "previewDomainShared"],
        ),
        ({"previewDomain": "previews.example.com"}, ["previewDomain", "one site (example.com)"]),
        ({"previewDomainShared": True}, ["previewDomainShared", "share no site"]),
        (
            {"previewHostedZone": "example.org"},
            ["previewHostedZone", "shop-previews.example.net does not lie in example.org"],
        ),
        ({"hostedZone": "example.org"}, ["hostedZone", "shop.example.com does not lie in example.org"]),
        ({"hostedZone": "hop.example.com"}, ["hostedZone", "does not lie in"]),
        ({"ledgerTable": "a/b"}, ["ledgerTable"]),
        ({"cluster": {"name": "-x"}}, ["cluster.name"]),
        ({"cluster": {"name": "x" * 101}}, ["cluster.name", "the most is 100"]),
        ({"cluster": {"kubernetesVersion": 1.3}}, ["cluster.kubernetesVersion", "quotes", "1.3"]),
        ({"cluster": {"kubernetesVersion": "1.34", "amiReleaseVersion": "1.35.7-20260903"}}, ["change both"]),
        ({"cluster": {"administrators": ["arn:aws:iam::1:user/x"]}}, ["cluster.administrators"]),
        ({"github": {"environment": "prod*"}}, ["github.environment"]),
        ({"tag": "v1.-2"}, ["shopcat:tag", "v1.-2"]),
        ({"tag": "latest"}, ["shopcat:tag", "latest"]),
        ({"rollback": "v1"}, ["shopcat:rollback", "v1.4.0->v1.3.0"]),
        ({"rotate": "v1.4.0->v1.3.0"}, ["shopcat:rotate", "v1.4.0-r1"]),
        ({"rotate": "v1.4.0-r1", "tag": "v1.5.0"}, ["tag, abort, rollback and rotate: one of them at a time"]),
        # URLs
        ({"awsEndpoint": "localhost"}, ["localhost", "URL"]),
        ({"awsEndpoint": "http://local host"}, ["awsEndpoint", "URL"]),
        ({"awsEndpoint": "http://localhost:65536"}, ["awsEndpoint", "URL"]),
        ({"awsEndpoint": "http://user:password@localhost"}, ["awsEndpoint", "URL"]),
        ({"chartMirror": {"externalSecrets": "x"}}, ["not a URL"]),
        *(
            (
                {"charts": {"externalSecrets": "0.20.4", "loadBalancerController": version}},
                ["three numbers such as 3.5.0"],
            )
            for version in ("v3.5.0", "3.5.0-rc.1", "3.5.0+build", "3.5", "latest", "^3.5.0", "03.5.0")
        ),
        # Numbers and truth values
        ({"release": {"replicas": True}}, ["release.replicas", "True is not a number"]),
        ({"release": {"replicas": "two"}}, ["release.replicas", "not a number"]),
        ({"release": {"replicas": 1.5}}, ["release.replicas", "whole number"]),
        ({"release": {"memory": "12"}}, ["12", "memory quantity"]),
        ({"release": {"memory": "0Mi"}}, ["memory quantity"]),
        ({"release": {"cpu": "0m"}}, ["CPU quantity"]),
        ({"release": {"cpu": "9" * 5000}}, ["release.cpu"]),
        ({"drain": {"appDrain": 1e18}}, ["drain.appDrain"]),
        ({"drain": {"appDrain": 10**400}}, ["drain.appDrain"]),
        ({"drain": {"appDrain": float("nan")}}, ["drain.appDrain"]),
        ({"drain": {"startup": 3601}}, ["drain.startup", "3601 is outside 0 to 3600 s"]),
        ({"drain": {"requeue": 0}}, ["drain.requeue", "0 is outside 1 to 60 s"]),
        ({"drain": {"healthInterval": 301}}, ["drain.healthInterval", "5 to 300"]),
        ({"protection": "off"}, ["protection", "neither true nor false"]),
        ({"protection": 0}, ["protection", "neither true nor false"]),
        ({"database": {"storageGibibytes": True}}, ["storageGibibytes", "not a number"]),
        # Another shape
        ({"vpc": []}, ["shopcat:vpc", "expected a map"]),
        ({"\ud800": 1}, ["shopcat:'\\ud800': half a character"]),
        ({"vpc": {"\ud800": 1}}, ["shopcat:vpc'\\ud800': half a character"]),
        ({"adminCidrs": "203.0.113.0/24"}, ["shopcat:adminCidrs", "expected a list"]),
        ({"release": {"env": ["A"]}}, ["release.env", "expected a map"]),
        ({"release": {"env": {"A": 1}}}, ["release.env.A", "quotes"]),
        # A second spelling would be a second place to look
        ({"api_access": "public"}, ["shopcat:api_access: unknown"]),
        # What several settings reach together
        (
            {"vpc": {"natGateways": 2}, "adminCidrs": [f"203.0.113.{n}/32" for n in range(4)]},
            ["adminCidrs: 4 networks, 2 addresses", "7 values of one listener rule, an ALB takes 5", "leave 2"],
        ),
        ({"cluster": existing(natAddresses=[])}, ["adminCidrs", "needs one source"]),
        ({"cluster": existing(natAddresses=["x"])}, ["cluster.existing.natAddresses"]),
        (
            {"cluster": existing(previewSubnetIds=["subnet-0123456789abcdef0", "subnet-0123456789abcdef5"])},
            ["previewSubnetIds", "subnet-0123456789abcdef0", "production's too"],
        ),
        ({"cluster": {"kubernetesVersion": "1.32", "amiReleaseVersion": ""}}, ["cluster.kubernetesVersion", "1.33"]),
        ({"cluster": existing(vpcId="x")}, ["cluster.existing.vpcId"]),
        ({"cluster": existing(publicSubnetIds=["subnet-01234567"] * 2)}, ["publicSubnetIds", "once"]),
    ],
)
def test_each_wrong_setting_is_named_with_what_was_expected(changes: dict[str, Any], words: list[str]) -> None:
    text = refusal(**changes)
    for word in words:
        assert word in text


def test_a_kubeconfig_is_never_shown() -> None:
    assert "s3cret" not in refusal(cluster=existing(kubeconfig={"token": "s3cret"}))
    assert "s3cret" not in refusal(cluster={"existing": "s3cret"})
    for wrong in ('{"password": "s3cret"}', ["s3cret"], "s3cret" * 1000):
        message = refusal(database={"masterSecret": wrong})
        assert "masterSecret" in message
        assert "s3cret" not in message


ENVIRONMENT = [
    ({"DATABASE_HOST": "db"}, ["DATABASE_HOST", "reserved", "application's secret"]),
    ({"DATABASE_POOL_SIZE": "9"}, ["DATABASE_POOL_SIZE", "reserved", "poolSize"]),
    ({"PORT": "80"}, ["PORT", "reserved"]),
    ({"SHOPCAT_COLOUR": "red"}, ["SHOPCAT_COLOUR", "the program's own"]),
    ({"SHOPCAT_ANYTHING": "x"}, ["SHOPCAT_ANYTHING", "the program's own"]),
    ({"1A": "x"}, ["1A", "not a name"]),
    ({"A B": "x"}, ["A B", "not a name"]),
    ({"A=B": "x"}, ["A=B", "not a name"]),
    ({"": "x"}, ["''", "not a name"]),
    ({"..": "x"}, ["..", "not a name"]),
    ({"A": "$(DATABASE_HOST)/x"}, ["A: Kubernetes replaces $(…)"]),
    ({"A": "pa$$word"}, ["A: Kubernetes turns $$ into $"]),
    ({"A": "x\0y"}, ["A: holds a NUL"]),
    ({"A": "x" * 70_000}, ["the most is 65536"]),
    # Each of these takes six bytes in JSON, which is how Pulumi hands it over.
    ({"A": "\x01" * 12_000}, ["the most is 65536"]),
    ({"A": "<" * 12_000}, ["the most is 65536"]),
    ({"MY_KEY": 1}, ["release.env.MY_KEY: expected text"]),
    ({"my_KeY": "$$"}, ["release.env: my_KeY:"]),
]


@pytest.mark.parametrize(("env", "words"), ENVIRONMENT)
def test_an_environment_that_would_be_changed_on_the_way_is_refused(env: dict[str, Any], words: list[str]) -> None:
    text = refusal(release={"env": env})
    with pytest.raises(ShopCatError) as refused:
        settings.read_preview(PREVIEWS, {"shopcat:tag": "abc", "shopcat:env": env})
    for word in words:
        assert word in text
        assert word.replace("release.env", "env") in str(refused.value)


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ({"migrate": [""]}, ["migrate", "first word is empty"]),
        ({"migrate": ["sh", "-c", "echo $$"]}, ["migrate", "turns $$ into $"]),
        ({"migrate": ["sh", "-c", "echo $(DATABASE_HOST)"]}, ["migrate", "${DATABASE_HOST}"]),
        ({"migrate": ["sh", "-c", "echo $(MINE)"], "env": {"MINE": "1"}}, ["migrate", "${MINE}"]),
        ({"migrate": ["x" * 40_000]}, ["migrate", "the most is 32768"]),
        ({"migrate": "python -m migrate"}, ["release.migrate", "expected a list"]),
        ({"migrateMemory": "512Mi"}, ["migrateMemory", "without migrate"]),
        ({"migrate": ["m"], "migrateMemory": "64"}, ["release.migrateMemory", "memory quantity"]),
        ({"migrate": ["m"], "migrateMemory": "4Gi"}, ["the migration", "MiB of memory", "migrateMemory"]),
        ({"migrate": ["m"], "migrateDeadline": 0}, ["release.migrateDeadline", "10 to 3600"]),
    ],
)
def test_a_migration_that_can_not_run_is_refused(release: dict[str, Any], words: list[str]) -> None:
    text = refusal(release=release)
    for word in words:
        assert word in text


def test_a_shell_s_own_substitution_in_a_migration_stays() -> None:
    found = settings.read_settings(committed(release={"migrate": ["sh", "-c", "echo $(date) ${DATABASE_HOST}"]}))
    assert found.release.migrate[2] == "echo $(date) ${DATABASE_HOST}"


def test_a_migration_has_the_application_s_own_size_unless_it_is_given_one() -> None:
    release = settings.read_settings(committed(release={"memory": "512Mi", "cpu": "300m", "migrate": ["m"]})).release
    assert release.migration == release.pod
    release = settings.read_settings(committed(release={"migrate": ["m"], "migrateMemory": "1Gi"})).release
    assert release.migration is not None
    assert release.migration.memory_mebibytes == 1024
    assert settings.read_settings(committed()).release.migration is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", "true"),
        ("[1, 2]", [1, 2]),
        ('{"a": {"b": 1}}', {"a": {"b": 1}}),
        ("[not json", "[not json"),
        ("[" * 100_000, "[" * 100_000),
        ("[" + "9" * 5000 + "]", "[" + "9" * 5000 + "]"),
    ],
)
def test_what_the_engine_hands_over_is_read_or_stays_text(text: str, value: Any) -> None:
    assert stack_file.plain(text) == value


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [("protection", "false", False), ("protection", "true", True), ("ledgerTable", "1234", "1234")],
)
def test_settings_that_come_as_text_are_what_they_say(setting: str, text: str, value: Any) -> None:
    assert settings.read_settings(committed(**{setting: text})).model_dump(by_alias=True)[setting] == value


@pytest.mark.parametrize("region", ["", None, "EU-central-1", "eu central", "eu-central-1a", 5, "x" * 5000])
def test_a_region_that_is_none_is_refused(region: Any) -> None:
    with pytest.raises(ShopCatError, match="aws:region"):
        settings.check_region(region, "Pulumi.prod.yaml")


def test_what_pulumi_has_encrypted_does_not_keep_bootstrap_from_reading(tmp_path: Path) -> None:
    document = stack_file.read_stack_file(COMMITTED)
    document["config"]["shopcat:cluster"] = existing(kubeconfig={"secure": "v1:abc"})
    path = tmp_path / "Pulumi.prod.yaml"
    path.write_text(stack_file.dump(document))
    region, found = settings.read_stack(path)
    assert region == "eu-central-1"
    assert found.cluster.existing is not None
    assert found.cluster.existing.kubeconfig == "[secret]"
