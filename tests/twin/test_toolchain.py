"""The twin's registry, image builds and chart mirror by themselves: no cluster, no network of the twin's own."""

import hashlib
import json
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.foundation import chart_archive
from tests.tools import aws
from tests.unit.test_chart_upgrade import SWITCHES, VALUES, definition
from twin import config
from twin.aws import registry, service
from twin.build import debian, golang, image_layers, programs
from twin.errors import TwinError
from twin.images import buildah, registry_client
from twin.kubernetes import charts
from twin.paths import is_root

pytestmark = pytest.mark.twin

MODULES = (service, registry, charts)


def take_down(twin: config.Twin) -> None:
    for module in reversed(MODULES):
        module.down(twin)
    shutil.rmtree(twin.directory, ignore_errors=True)
    config.release_index(twin)


@pytest.fixture(scope="module")
def tools() -> Iterator[config.Twin]:
    take_down(config.load("test-toolchain", simulated=True))
    twin = config.load("test-toolchain", simulated=True)
    twin.directory.mkdir(parents=True)
    for module in MODULES:
        module.up(twin)
    aws(twin, "ecr").create_repository(repositoryName="frozen", imageTagMutability="IMMUTABLE")
    aws(twin, "ecr").create_repository(repositoryName="free", imageTagMutability="MUTABLE")
    yield twin
    take_down(twin)


def a_recipe(tmp_path: Path, repository: str, tag: str, content: str) -> image_layers.Recipe:
    folder = tmp_path / f"{repository}-{tag}-{content}"
    folder.mkdir()
    (folder / "file").write_text(content)
    layer = tmp_path / f"{folder.name}.tar.gz"
    image_layers.tar_tree(folder, layer)
    return image_layers.Recipe(repository, tag, layer)


def push(twin: config.Twin, recipe: image_layers.Recipe) -> str:
    return registry_client.push_recipe(twin, recipe, system=False)


def recorded(twin: config.Twin, repository: str, tag: str) -> str | None:
    ecr = aws(twin, "ecr")
    try:
        images = ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])
    except ecr.exceptions.ImageNotFoundException:
        return None
    return str(images["imageDetails"][0]["imageDigest"])


def request(
    twin: config.Twin, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, Any]]:
    url = f"http://127.0.0.1:{twin.registry_port}{path}"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data=body, method=method, headers=headers), timeout=10
        ) as answer:
            return answer.status, {}
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_push_is_recorded_in_ecr_under_the_registry_s_digest(tools: config.Twin, tmp_path: Path) -> None:
    digest = push(tools, a_recipe(tmp_path, "frozen", "v1", "one"))
    assert registry_client.digest(tools, "frozen", "v1") == digest
    assert recorded(tools, "frozen", "v1") == digest


def test_a_second_tag_of_the_same_image_is_the_same_digest(tools: config.Twin, tmp_path: Path) -> None:
    first = push(tools, a_recipe(tmp_path, "frozen", "v2", "two"))
    second = push(tools, a_recipe(tmp_path, "frozen", "v2-again", "two"))
    assert first == second == recorded(tools, "frozen", "v2") == recorded(tools, "frozen", "v2-again")


def test_the_same_push_again_is_fine_another_digest_is_refused(tools: config.Twin, tmp_path: Path) -> None:
    recipe = a_recipe(tmp_path, "frozen", "v3", "three")
    digest = push(tools, recipe)
    assert push(tools, recipe) == digest
    with pytest.raises(TwinError, match=r"400.*TAG_INVALID.*'v3' already exists in the 'frozen' repository"):
        push(tools, a_recipe(tmp_path, "frozen", "v3", "other"))
    assert registry_client.digest(tools, "frozen", "v3") == digest
    assert recorded(tools, "frozen", "v3") == digest


def test_a_mutable_tag_moves(tools: config.Twin, tmp_path: Path) -> None:
    push(tools, a_recipe(tmp_path, "free", "latest", "one"))
    digest = push(tools, a_recipe(tmp_path, "free", "latest", "two"))
    assert registry_client.digest(tools, "free", "latest") == recorded(tools, "free", "latest") == digest


def test_of_two_pushes_of_one_tag_at_once_one_wins(tools: config.Twin, tmp_path: Path) -> None:
    recipes = [a_recipe(tmp_path, "frozen", "race", f"content-{number}") for number in range(6)]

    def attempt(recipe: image_layers.Recipe) -> str | None:
        try:
            return push(tools, recipe)
        except TwinError as error:
            if "TAG_INVALID" not in str(error):
                raise
            return None

    with ThreadPoolExecutor(len(recipes)) as pool:
        won = [digest for digest in pool.map(attempt, recipes) if digest]
    assert won == [registry_client.digest(tools, "frozen", "race")]
    assert recorded(tools, "frozen", "race") == won[0]


def test_a_push_to_a_repository_that_ecr_does_not_know_is_refused(tools: config.Twin, tmp_path: Path) -> None:
    with pytest.raises(TwinError, match=r"404.*NAME_UNKNOWN.*'nowhere' does not exist"):
        push(tools, a_recipe(tmp_path, "nowhere", "v1", "one"))


def test_system_images_are_pulled_by_all_and_pushed_past_ecr_alone(tools: config.Twin, tmp_path: Path) -> None:
    recipe = a_recipe(tmp_path, "system", "v1", "one")
    digest = registry_client.push_recipe(tools, recipe)
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    assert request(tools, "GET", f"/v2/system/manifests/{digest}", **accept)[0] == 200
    with pytest.raises(TwinError, match="NAME_UNKNOWN"):
        push(tools, recipe)


def test_credentials_of_ecr_s_login_are_taken(tools: config.Twin) -> None:
    assert request(tools, "GET", "/v2/", Authorization="Basic QVdTOnRva2Vu")[0] == 200


def test_what_is_no_push_is_refused_by_name(tools: config.Twin) -> None:
    digest = f"sha256:{hashlib.sha256(b'x').hexdigest()}"
    status, answer = request(tools, "DELETE", f"/v2/frozen/manifests/{digest}")
    assert (status, answer["errors"][0]["code"]) == (405, "UNSUPPORTED")
    status, answer = request(tools, "PUT", "/v2/frozen/tags/list", b"{}")
    assert (status, answer["errors"][0]["code"]) == (404, "UNSUPPORTED")


def test_a_taken_port_is_said_before_the_registry_dies_of_it(tools: config.Twin) -> None:
    name = "test-taken"
    other = config.Twin(name, tools.index, tools.cache, tools.state, simulated=True)
    other.directory.mkdir(exist_ok=True)
    try:
        with pytest.raises(TwinError, match=rf"port {tools.plain_registry_port} on 127\.0\.0\.1 is taken"):
            registry.up(other)
        with pytest.raises(TwinError, match=rf"port {tools.charts_port} on 127\.0\.0\.1 is taken"):
            charts.up(other)
    finally:
        shutil.rmtree(other.directory)


def test_the_mirror_serves_both_charts_in_the_versions_that_production_pins(tools: config.Twin) -> None:
    with urllib.request.urlopen(f"{tools.chart_mirror}/index.yaml", timeout=5) as answer:
        entries = yaml.safe_load(answer.read())["entries"]
    served = {name: entry["version"] for name, (entry,) in entries.items()}
    pinned = yaml.safe_dump(config.production_settings())
    assert set(served) == {"external-secrets", "aws-load-balancer-controller"}
    for version in served.values():
        assert version in pinned


def test_external_secrets_chart_renders_with_its_definitions(tools: config.Twin) -> None:
    rendered = subprocess.run(
        [
            programs.program(tools, "helm"), "template", "external-secrets", "external-secrets",
            "--repo", tools.chart_mirror, "--include-crds",
        ],
        text=True, capture_output=True, check=True,
    ).stdout  # fmt: skip
    kinds = [document["kind"] for document in yaml.safe_load_all(rendered) if document]
    assert kinds.count("Deployment") == 3
    names = {d["metadata"]["name"] for d in yaml.safe_load_all(rendered) if d and d["kind"].startswith("CustomRes")}
    assert {"externalsecrets.external-secrets.io", "secretstores.external-secrets.io"} <= names
    (packed,) = (tools.directory / "charts").glob("external-secrets-[0-9]*.tgz")
    archive = chart_archive.read_archive(packed.read_bytes())
    assert (names, archive.crds()) == ({each["metadata"]["name"] for each in archive.templated({})}, [])
    assert f"external-secrets/external-secrets:v{golang.EXTERNAL_SECRETS}" in rendered


def test_definitions_are_rendered_as_helm_does_or_counted_as_missing(tools: config.Twin, tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: chart, version: 1.0.0}")
    (chart / "values.yaml").write_text(yaml.safe_dump(VALUES))
    for number, switch in enumerate(SWITCHES):
        for branch, parts in (("if", ("", None)), ("else", (None, ""))):
            text = yaml.safe_dump(definition(f"{branch}{number}.example.com", {"v1": True}))
            first, second = (text if part is not None else "" for part in parts)
            template = f"{{{{- {switch} }}}}\n{first}{{{{- else }}}}\n{second}{{{{- end }}}}\n" if switch else text
            (chart / "templates" / f"{branch}{number}.yaml").write_text(f"{{{{/* a\nnote */}}}}\n{template}")
    given = {"installCRDs": True, "crds": {"createOther": True}}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(given))
    helm = programs.program(tools, "helm")
    arguments = ["template", "x", str(chart), "--values", str(tmp_path / "values.yaml")]
    rendered = subprocess.run([helm, *arguments], text=True, capture_output=True, check=True).stdout
    subprocess.run([helm, "package", str(chart), "--destination", str(tmp_path)], capture_output=True, check=True)
    archive = chart_archive.read_archive((tmp_path / "chart-1.0.0.tgz").read_bytes())
    ours = {each["metadata"]["name"] for each in archive.templated(given)}
    theirs = {each["metadata"]["name"] for each in yaml.safe_load_all(rendered) if each}
    unknown = next(number for number, switch in enumerate(SWITCHES) if "Capabilities" in switch)
    assert ours == {name for name in theirs if f"{unknown}." not in name}


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    shutil.copy(debian.__file__, folder / "file")
    (folder / "Dockerfile").write_text("FROM scratch\nARG GREETING\nLABEL greeting=$GREETING\nCOPY file /file\n")
    return folder


needs_root = pytest.mark.skipif(not is_root(), reason="buildah's mounts need root")


@pytest.fixture
def builder(tools: config.Twin) -> config.Twin:
    """The same twin, allowed to build images: those of Debian's packages that need root."""
    return config.Twin(tools.name, tools.index, tools.cache, tools.state, simulated=False)


def mounts(builder: config.Twin) -> set[str]:
    """Mount points that a build could have left; other tests' twins mount elsewhere meanwhile."""
    places = (str(builder.cache), str(buildah._BLOB_CACHE))
    mounted = (line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
    return {path for path in mounted if path.startswith(places)}


def engine_folder() -> bool:
    """Report whether the machine has a container engine's folder, while no other test's build has made it temporarily."""
    with buildah._blob_cache_lock():
        return buildah._BLOB_CACHE.exists()


@needs_root
def test_builds_of_two_caches_share_the_machine_s_folder_in_turn(builder: config.Twin, tmp_path: Path) -> None:
    other = config.Twin(builder.name, builder.index, tmp_path, builder.state, simulated=False)
    remembered = engine_folder()
    entered = threading.Event()

    def build_beside() -> bool:
        with buildah._storage(other):
            entered.set()
            return buildah._BLOB_CACHE.exists()

    with ThreadPoolExecutor() as pool:
        with buildah._storage(builder):
            beside = pool.submit(build_beside)
            assert not entered.wait(1)
            assert buildah._BLOB_CACHE.exists()
        assert beside.result(timeout=60)
    assert engine_folder() == remembered


@needs_root
def test_a_build_leaves_no_mount_and_the_same_source_is_the_same_digest(
    tools: config.Twin, builder: config.Twin, context: Path
) -> None:
    before, remembered = mounts(builder), engine_folder()
    digests = []
    for tag in ("b1", "b2"):
        reference = buildah.build_image(
            builder,
            context=context,
            dockerfile=context / "Dockerfile",
            tag=f"twin.invalid/frozen:{tag}",
            build_args={"GREETING": "hello"},
        )
        assert reference.startswith("sha256:")
        digests.append(buildah.push(builder, reference, "frozen", tag))
    assert digests[0] == digests[1] == recorded(tools, "frozen", "b1") == registry_client.digest(tools, "frozen", "b2")
    assert mounts(builder) <= before
    assert engine_folder() == remembered


@needs_root
def test_a_failed_build_names_its_log_and_leaves_no_mount(builder: config.Twin, context: Path) -> None:
    before = mounts(builder)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY absent /file\n")
    with pytest.raises(TwinError, match=r"(?s)building the image .*failed \(log: .*image-frozen-bad\.log\).*absent"):
        buildah.build_image(
            builder,
            context=context,
            dockerfile=context / "Dockerfile",
            tag="twin.invalid/frozen:bad",
            build_args={},
        )
    assert mounts(builder) <= before
