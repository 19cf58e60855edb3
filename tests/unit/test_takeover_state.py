"""Terraform's state is read whole or refused by one error that says what the file is."""

import base64
import gzip
import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.commands.takeover import helm
from infra.commands.takeover.redaction import HIDDEN, Redactor, is_secret_name, secret_texts
from infra.commands.takeover.state import parse_state
from infra.errors import SettingsError

FOLDER = Path(__file__).parent / "fixtures" / "terraform"


def _state(**options: Any) -> bytes:
    return json.dumps({"version": 4, "terraform_version": "1.9.8", "resources": [], **options}).encode()


def _archive() -> bytes:
    target = BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("tfplan", "plan")
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"\xff\xfe{", "not UTF-8"),
        (_state()[:-1], r"no whole JSON \(line 1, column \d+"),
        (b"terraform {}", r"no whole JSON \(line 1, column 1"),
        (b"[" * 100_000, "no JSON that can be read"),
        (b'{"version": 4, "resources": ' + b"[" * 99 + b"]" * 99 + b"}", "`mode` is missing"),
        (b'{"version": 4, "resources": ' + b"[" * 100 + b"]" * 100 + b"}", "nested more than 100 deep"),
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        (b"{}", "no `version`"),
        (_archive(), r"archive, as `terraform plan -out`"),
        (b'{"format_version": "1.2", "resource_changes": []}', r"a plan as `terraform show -json`"),
        (b'{"format_version": "1.0", "values": {}}', r"a state as `terraform show -json`"),
        (b'{"version": 3, "backend": {"type": "s3", "config": {}}, "modules": []}', r"points to a backend \('s3'\)"),
        (b'{"version": 3, "modules": []}', "version 3; only version 4"),
        (b'{"version": 1, "modules": []}', "version 1; only version 4"),
        (b'{"version": 5, "resources": []}', "version 5; only version 4"),
        (b'{"version": "4", "resources": []}', "version str; only version 4"),
        (b'{"version": true, "resources": []}', "version True|version bool"),
        (b'{"serial": 3, "lineage": "x", "encrypted_data": "eA=="}', "an encrypted state"),
        (b'{"version": 4}', "`resources` is no list"),
        (_state(resources=[7]), r"resources\[0\]: `mode` is missing"),
        (_state(resources=[{"mode": "managed", "type": "aws_vpc", "name": "x"}]), "`instances` is no list"),
        (_state(resources=[{"mode": "managed", "type": "aws_vpc", "name": "x", "instances": [1]}]), "is no object"),
    ],
)
def test_what_is_no_state_of_version_4_is_refused_by_what_it_is(content: bytes, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        parse_state(content, "terraform.tfstate")
    assert str(error.value).startswith("terraform.tfstate")


def test_addresses_are_those_of_terraform_state_list() -> None:
    def resource(type_name: str, instances: list[Any], **options: Any) -> dict[str, Any]:
        return {"mode": "managed", "type": type_name, "name": "this", "instances": instances, **options}

    state = parse_state(
        _state(
            resources=[
                resource("aws_vpc", [{"attributes": {"id": "vpc-1"}}]),
                resource("aws_subnet", [{"index_key": 0}, {"index_key": 1, "status": "tainted"}], module="module.vpc"),
                resource("aws_iam_role", [{"index_key": 'a"b'}], module='module.eks.module.nodes["x"]'),
                resource("aws_lb", [{"attributes": {}}, {"attributes": {}, "deposed": "0a1b2c3d"}]),
                resource("aws_eip", [{"attributes_flat": {"id": "eipalloc-1", "password": "old-flat-password"}}]),
                resource("aws_caller_identity", [{}, {}], mode="data"),
            ]
        ),
        "s",
    )
    assert [each.address for each in state.owned] == [
        "aws_vpc.this",
        "module.vpc.aws_subnet.this[0]",
        "module.vpc.aws_subnet.this[1]",
        'module.eks.module.nodes["x"].aws_iam_role.this["a\\"b"]',
        "aws_lb.this",
        "aws_lb.this (deposed 0a1b2c3d)",
        "aws_eip.this",
    ]
    assert [each.tainted for each in state.owned].count(True) == 1
    assert [each.address for each in state.owned if each.deposed] == ["aws_lb.this (deposed 0a1b2c3d)"]
    assert [each.address for each in state.owned if not each.comparable] == ["aws_eip.this"]
    assert state.data_sources == 2
    assert state.secrets == {"old-flat-password"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_read_or_refused(value: Any) -> None:
    with pytest.raises(SettingsError):
        parse_state(json.dumps(value).encode(), "s")


@given(
    resources=st.lists(
        st.fixed_dictionaries(
            {"mode": st.sampled_from(["managed", "data"]), "type": st.text(min_size=1), "name": st.text(min_size=1)},
            optional={
                "instances": st.lists(st.dictionaries(st.text(), json_values)) | json_values,
                "module": json_values,
            },
        )
        | json_values,
        max_size=3,
    ),
    outputs=json_values,
)
def test_any_resources_are_read_or_refused(resources: list[Any], outputs: Any) -> None:
    content = _state(resources=resources, outputs=outputs)
    try:
        state = parse_state(content, "s")
    except SettingsError:
        return
    managed = [each for each in resources if each["mode"] == "managed"]
    assert len(state.owned) == sum(len(each["instances"]) for each in managed)


def test_every_kind_of_secret_is_known() -> None:
    content = _state(
        outputs={
            "open": {"value": "an-open-output", "type": "string"},
            "hidden": {"value": {"url": ["postgres://secret-output"]}, "sensitive": True},
        },
        resources=[
            {
                "mode": "managed",
                "type": "aws_db_instance",
                "name": "x",
                "instances": [
                    {
                        "attributes": {
                            "identifier": "shopcat-database",
                            "password": "marked-and-named",
                            "options": [{"inner": "marked-by-its-path"}, {"inner": "not-marked"}],
                            "nested": {"client_secret": ["named-below"]},
                            "environment": '{"API_TOKEN": "named-in-a-document", "HOST": "host-of-document"}',
                            "set": [{"name": "db.password", "value": "named-by-a-neighbour"}],
                            "master_user_secret_kms_key_id": "key-of-a-secret",
                            "password_length": "24",
                            "secret_arn": "arn:aws:secretsmanager:x",
                        },
                        "sensitive_attributes": [
                            [{"type": "get_attr", "value": "password"}],
                            [
                                {"type": "get_attr", "value": "options"},
                                {"type": "index", "value": {"value": 0, "type": "number"}},
                                {"type": "get_attr", "value": "inner"},
                            ],
                        ],
                    }
                ],
            },
            {
                "mode": "data",
                "type": "random_password",
                "name": "y",
                "instances": [{"attributes": {"id": "none", "result": "generated", "bcrypt_hash": "hashed"}}],
            },
        ],
    )
    assert parse_state(content, "s").secrets == {
        "postgres://secret-output", "marked-and-named", "marked-by-its-path", "named-below", "named-in-a-document",
        "named-by-a-neighbour", "generated", "hashed",
    }  # fmt: skip


def test_paths_that_are_not_understood_make_everything_secret() -> None:
    attributes = {"name": "everything-here", "other": ["that-too"]}
    for paths in ("text", [{"unknown": "form"}], [[{"type": "get_attr", "value": "gone"}]]):
        assert set(secret_texts("aws_x", attributes, paths)) == {"everything-here", "that-too"}
    for paths in (None, []):
        assert not set(secret_texts("aws_x", attributes, paths))


@pytest.mark.parametrize(
    "name", ["password", "master_password", "secret_string", "auth_token", "private_key_pem", "apiKey"]
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["secret_arn", "secret_id", "password_length", "token_type", "secret_name", "engine"])
def test_names_that_only_speak_of_secrets(name: str) -> None:
    assert not is_secret_name(name)


def test_long_secrets_are_hidden_everywhere_and_short_ones_as_whole_values() -> None:
    redactor = Redactor(["long-secret", "shop", 'with "quotes"'])
    assert redactor.hide("x long-secret y") == f"x {HIDDEN} y"
    assert redactor.hide("shopcat") == "shopcat"
    assert redactor.hide("shop") == HIDDEN
    assert redactor.hide("a, shop, b") == f"a, {HIDDEN}, b"
    assert redactor.hide(json.dumps(['with "quotes"'])) == f'["{HIDDEN}"]'


# Helm -----------------------------------------------------------------------------------------------------------------


def test_helm_s_output_is_read_up_to_its_notes() -> None:
    release = helm.parse_text((FOLDER / "helm-get-all.yaml").read_bytes(), "helm.yaml", "elsewhere")
    assert [each.address for each in release.owned] == [
        "helm: Secret shopcat/shopcat",
        "helm: Service shopcat/shopcat",
        "helm: Deployment shopcat/shopcat",
    ]
    assert release.secrets == {"fixture-chart-database-password"}


def test_a_release_in_the_cluster_is_read() -> None:
    encoded = base64.b64encode(b"decoded-value").decode()
    manifest = (
        f"kind: Service\nmetadata: {{name: a}}\n---\nkind: Secret\nmetadata: {{name: b}}\ndata: {{k: {encoded}}}\n"
    )
    document = {"name": "r", "namespace": "shopcat", "manifest": manifest, "config": {"db": {"password": "chosen"}}}
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(document).encode()))).decode()
    release = helm.parse_secrets([{"metadata": {"name": "sh.helm.release.v1.r.v1"}, "data": {"release": packed}}], "n")
    assert [each.address for each in release.owned] == ["helm: Service shopcat/a", "helm: Secret shopcat/b"]
    assert release.secrets == {"chosen", "decoded-value", encoded}


@pytest.mark.parametrize("release", [None, "", "!", "bm8=", "eyJhIjogMX0=", 7])
def test_a_secret_that_holds_no_release_is_refused(release: Any) -> None:
    with pytest.raises(SettingsError, match=r"Secret n/x holds no Helm release"):
        helm.parse_secrets([{"metadata": {"name": "x"}, "data": {"release": release}}], "n")


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_any_output_of_helm_is_read_or_refused(content: bytes) -> None:
    try:
        release = helm.parse_text(content, "helm.yaml", "shopcat")
    except SettingsError:
        return
    assert release.owned
