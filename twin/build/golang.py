"""Programs built from published Go modules, each through a small wrapper module made here.

A wrapper is needed because ``go install module@version`` refuses modules with ``replace`` directives, and all of these
have some. Versions: the newest that the Go module proxy and each other allow; measured to work together.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twin.build.cache import BuiltPart, Step
from twin.errors import TwinError

PULUMI = "3.250.0"
LANGUAGE_HOST = "3.79.0"  # the last of which the Go module proxy has the source
KUBERNETES_PLUGIN = "4.25.0"
_KUBERNETES_PLUGIN_REVISION = "v4.0.0-20260115033456-f47bc2d6f199"  # the commit of upstream's tag v4.25.0
KUBERNETES = "1.35.4"
EXTERNAL_SECRETS = "0.20.4"
HELM = "3.19.0"
KUBE_ROUTER = "2.1.0"
KWOK = "0.7.0"
COREDNS = "1.12.4"
PAUSE = "3.10"
ACTIONLINT = "1.7.12"
ARGO_ROLLOUTS = "1.8.3"
_GO = "1.25.0"
_OLDEST_GO = (1, 21)
_WRAPPERS = Path(__file__).with_name("wrappers")
_MODULE = "shopcat.invalid/twin"  # a wrapper's own module path; never looked up


@dataclass(frozen=True)
class Program:
    """One Go build: which module, what of it to build, and under which name.

    Files in ``wrappers/<name>``, if any, are copied into the wrapper: a ``main.go`` of our own and what it needs.
    """

    name: str
    version: str
    module: str
    revision: str = ""
    """The module's version where that isn't ``v<version>``."""
    package: str = "."
    binary: str = ""
    replaces: tuple[str, ...] = ()
    same_replaces: bool = False
    """Take the module's own replaces too."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """Files of the module, by their path in it, that are compiled with this text instead of their own."""
    ldflags: str = ""
    links: tuple[str, ...] = ()
    changes: tuple[tuple[str, str], ...] = ()
    """Changes of `before` in upstream's text."""
    before: Callable[[Path, Path], None] | None = None
    """Called with the module's folder and the wrapper's."""
    after: Callable[[Step, Path], None] | None = None

    def source(self) -> dict[str, Any]:
        """The downloaded module; its ``Dir`` holds its files, ``GoMod`` its module file."""
        return module(self.module, self.module_version)

    @property
    def module_version(self) -> str:
        """The version in the form that a module file takes."""
        return self.revision or f"v{self.version}"

    def files(self) -> dict[str, str]:
        """The wrapper's own files, by their path in it."""
        folder = _WRAPPERS / self.name
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_text() for path in paths}


def _go(arguments: list[str], cwd: Path) -> str:
    result = subprocess.run(
        ["go", *arguments], cwd=cwd, env=_environment(), text=True, check=False, capture_output=True
    )
    if result.returncode != 0:
        raise TwinError(f"`go {' '.join(arguments)}` failed: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOWORK": "off"}


def module(path: str, version: str) -> dict[str, Any]:
    """Download a module; its ``Dir`` holds its files, ``GoMod`` its module file."""
    description: dict[str, Any] = json.loads(_go(["mod", "download", "-json", f"{path}@{version}"], Path.cwd()))
    return description


def _own_replaces(program: Program) -> tuple[str, ...]:
    """Return the replaces of a module's own file that lead to published modules; a wrapper's file has none of them by itself."""
    text = Path(program.source()["GoMod"]).read_text()
    return tuple(re.findall(r"^\t(\S+(?: v\S+)? => [^.\s]\S* v\S+)", text, re.MULTILINE))


def _kubernetes_replaces() -> tuple[str, ...]:
    """Kubernetes' staging modules are published under v0.<minor>.<patch>; its own replaces point into its tree."""
    text = Path(module("k8s.io/kubernetes", f"v{KUBERNETES}")["GoMod"]).read_text()
    staging = re.findall(r"^\t(\S+) => \./staging", text, re.MULTILINE)
    published = f"v0.{KUBERNETES.partition('.')[2]}"
    return tuple(f"{name} => {name} {published}" for name in staging)


def _language_host_source() -> Path:
    return Path(module("github.com/pulumi/pulumi/sdk/v3", f"v{LANGUAGE_HOST}")["Dir"]) / "python"


def _copy_language_host(_: Path, wrapper: Path) -> None:
    """Copy upstream's host, and the package that it uses, to be compiled with the CLI's own protocol and packs.go."""
    source = _language_host_source()
    text = (source / "cmd" / "pulumi-language-python" / "main.go").read_text()
    for before, after in _LANGUAGE_HOST_CHANGES:
        if before not in text:
            raise TwinError(f"the language host {LANGUAGE_HOST} has no {before!r} to be changed")
        text = text.replace(before, after)
    (wrapper / "main.go").write_text(text)
    (wrapper / "python").mkdir()
    for name in ("python.go", "shim_unix.go", "shim_windows.go"):
        shutil.copyfile(source / name, wrapper / "python" / name)


def _copy_language_host_script(step: Step, _: Path) -> None:
    script = step.directory / "bin" / "pulumi-language-python-exec"
    shutil.copyfile(_language_host_source() / "cmd" / script.name, script)
    script.chmod(0o755)


def _write_plugin_schema(source: Path, wrapper: Path) -> None:
    """Make the two files that the plugin embeds, as upstream's generate.go does."""
    folder = source / "cmd" / "pulumi-resource-kubernetes"
    for name, more in (("schema.json", {"version": KUBERNETES_PLUGIN}), ("terraform-mapping.json", {})):
        document = {**json.loads((folder / name).read_text()), **more}
        (wrapper / name).write_text(json.dumps(document, separators=(",", ":")))


def _copy_external_secrets_files(step: Step, _: Path) -> None:
    source = Path(module("github.com/external-secrets/external-secrets", f"v{EXTERNAL_SECRETS}")["Dir"])
    for name in ("charts", "crds"):
        shutil.copytree(source / "deploy" / name, step.directory / name)
    for path in step.directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)


def _copy_argo_manifests(step: Step, _: Path) -> None:
    source = Path(programs()["rollouts-controller"].source()["Dir"]) / "manifests"
    shutil.copytree(source, step.directory / "manifests", copy_function=shutil.copyfile)
    for path in step.directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)


_CLIPBOARD = "github.com/atotto/clipboard => github.com/tgummerer/clipboard v0.0.0-20241001131231-d02d263e614e"
_LANGUAGE_HOST_CHANGES = (
    ('"github.com/pulumi/pulumi/sdk/v3/python"', f'"{_MODULE}/pulumi-language-python/python"'),
    ("if logging.V(5) {", "if logging.V(5).Enabled() {"),
    ("if logging.V(9) {", "if logging.V(9).Enabled() {"),
    (") About(ctx context.Context, req *pbempty.Empty)", ") About(ctx context.Context, req *pulumirpc.AboutRequest)"),
    (") RunPlugin(", ") runOtherPlugin("),
)
"""Where the protocol has moved since, and the method that packs.go puts itself before."""
_VERSION = "k8s.io/component-base/version"
_EXTERNAL_SECRETS_OF_AWS = {
    # Upstream registers some forty providers, whose SDKs take long to build. It says by name what it lacks.
    "pkg/provider/register/register.go": (
        'package register\n\nimport _ "github.com/external-secrets/external-secrets/pkg/provider/aws"\n'
    ),
    "pkg/generator/register/register.go": "package register\n",
}


def programs() -> dict[str, Program]:
    """Every Go program of the twin, by name, in the order in which they are best built."""
    major, minor, _ = KUBERNETES.split(".")
    listed = (
        Program(
            "kubernetes",
            KUBERNETES,
            "k8s.io/kubernetes",
            binary="kubernetes",
            ldflags=(
                f"-X {_VERSION}.gitVersion=v{KUBERNETES} -X {_VERSION}.gitMajor={major} -X {_VERSION}.gitMinor={minor}"
            ),
            links=("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
        ),
        Program(
            "pulumi",
            PULUMI,
            "github.com/pulumi/pulumi/pkg/v3",
            package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
            binary="pulumi",
            replaces=(_CLIPBOARD,),
            ldflags=f"-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version={PULUMI}",
        ),
        Program(
            "pulumi-language-python",
            LANGUAGE_HOST,
            "github.com/pulumi/pulumi/pkg/v3",  # the CLI's module, so that both are compiled with the same packages
            revision=f"v{PULUMI}",
            binary="pulumi-language-python",
            replaces=(_CLIPBOARD,),
            changes=_LANGUAGE_HOST_CHANGES,
            before=_copy_language_host,
            after=_copy_language_host_script,
        ),
        Program(
            "pulumi-kubernetes",
            KUBERNETES_PLUGIN,
            "github.com/pulumi/pulumi-kubernetes/provider/v4",
            revision=_KUBERNETES_PLUGIN_REVISION,
            binary="pulumi-resource-kubernetes",
            # The whole Go SDK would be compiled for three components that nothing here declares.
            replaces=("github.com/pulumi/pulumi-kubernetes/sdk/v4 => ./stub",),
            ldflags=f"-X github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/version.Version={KUBERNETES_PLUGIN}",
            before=_write_plugin_schema,
        ),
        Program("helm", HELM, "helm.sh/helm/v3", package="helm.sh/helm/v3/cmd/helm", binary="helm"),
        Program(
            "external-secrets",
            EXTERNAL_SECRETS,
            "github.com/external-secrets/external-secrets",
            package="github.com/external-secrets/external-secrets",
            binary="external-secrets",
            replaces=("github.com/Masterminds/sprig/v3 => github.com/external-secrets/sprig/v3 v3.3.0",),
            instead=_EXTERNAL_SECRETS_OF_AWS,
            after=_copy_external_secrets_files,
        ),
        Program(
            "network-policies",
            KUBE_ROUTER,
            "github.com/cloudnativelabs/kube-router/v2",
            binary="network-policies",
        ),
        Program("coredns", COREDNS, "github.com/coredns/coredns", binary="coredns"),
        Program("kwok", KWOK, "sigs.k8s.io/kwok", package="sigs.k8s.io/kwok/cmd/kwok", binary="kwok"),
        Program("pause", PAUSE, "", binary="pause"),
        Program(
            "rollouts-controller",
            ARGO_ROLLOUTS,
            "github.com/argoproj/argo-rollouts",
            package="github.com/argoproj/argo-rollouts/cmd/rollouts-controller",
            binary="rollouts-controller",
            same_replaces=True,
            ldflags=f"-X github.com/argoproj/argo-rollouts/utils/version.version=v{ARGO_ROLLOUTS}",
            after=_copy_argo_manifests,
        ),
        Program(
            "actionlint",
            ACTIONLINT,
            "github.com/rhysd/actionlint",
            package="github.com/rhysd/actionlint/cmd/actionlint",
            binary="actionlint",
        ),
    )
    return {program.name: program for program in listed}


def go_problem(answer: str) -> str | None:
    """Return what is wrong with the Go whose ``go env GOVERSION`` gave this answer (empty: no Go); None if it is new enough.

    From 1.21 on, Go fetches a newer toolchain by itself where a module asks for one.
    """
    version = re.match(r"go(\d+)\.(\d+)", answer)
    if version and (int(version[1]), int(version[2])) >= _OLDEST_GO:
        return None
    wanted = ".".join(map(str, _OLDEST_GO))
    what = f"Go is {answer}" if answer else "Go is missing"
    return f"{what}; the twin's programs need {wanted} or newer, best {_GO}: https://go.dev/dl, then put it on PATH"


def _require_go() -> None:
    program = shutil.which("go")
    answer = _go(["env", "GOVERSION"], Path.cwd()).strip() if program else ""
    problem = go_problem(answer)
    if problem is not None:
        raise TwinError(problem)


def _changed_copy(program: Program, wrapper: Path) -> Path:
    copy = wrapper / "changed"
    shutil.copytree(program.source()["Dir"], copy, copy_function=shutil.copyfile)
    for folder, _, _ in os.walk(copy):
        Path(folder).chmod(0o755)  # Go's own are read-only
    for path, text in program.instead.items():
        if not (copy / path).is_file():
            raise TwinError(f"{program.module} v{program.version} has no {path} to be compiled differently")
        (copy / path).write_text(text)
    return copy


def _write_wrapper(program: Program, wrapper: Path) -> None:
    for path, text in {"go.mod": "", **program.files()}.items():
        (wrapper / path).parent.mkdir(parents=True, exist_ok=True)
        (wrapper / path).write_text(text)
    replaces = _kubernetes_replaces() if program.name == "kubernetes" else program.replaces
    if program.same_replaces:
        replaces = (*replaces, *_own_replaces(program))
    if program.instead:
        replaces = (*replaces, f"{program.module} => ./{_changed_copy(program, wrapper).name}")
    lines = [f"module {_MODULE}/{program.name}", f"go {_GO}"]
    if program.module:
        source = program.source()
        lines.append(f"require {program.module} {program.module_version}")
        checksums = Path(source["Dir"]) / "go.sum"
        if checksums.exists():
            (wrapper / "go.sum").write_bytes(checksums.read_bytes())
        if program.before is not None:
            program.before(Path(source["Dir"]), wrapper)
    lines += [f"replace {replace}" for replace in replaces]
    (wrapper / "go.mod").write_text("\n".join(lines) + "\n")


def _build(program: Program, step: Step) -> None:
    _require_go()
    wrapper = step.directory / "wrapper"
    _write_wrapper(program, wrapper)
    target = step.directory / "bin" / program.binary
    # Debugging information would be thrown away by the linker (-s -w), so none is made.
    command = ["go", "build", "-trimpath", "-gcflags=all=-dwarf=false", "-o", str(target)]
    command += ["-ldflags", f"-s -w {program.ldflags}".strip()]
    step.run([*command, program.package], cwd=wrapper, env=_environment())
    shutil.rmtree(wrapper / "changed", ignore_errors=True)
    for link in program.links:
        (step.directory / "bin" / link).symlink_to(program.binary)
    if program.after is not None:
        program.after(step, wrapper)


class _Downloads:
    """Fetch what programs need, one after the other, until stopped."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._stopped = threading.Event()
        self._running: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Download, and ignore failures: the build itself downloads what is missing, and says what fails."""
        for name in self._names:
            with contextlib.suppress(TwinError, OSError), tempfile.TemporaryDirectory(prefix="twin-ahead-") as folder:
                wrapper = Path(folder) / "wrapper"
                _write_wrapper(programs()[name], wrapper)
                if self._stopped.is_set():
                    return
                # Listing a package's imports downloads the modules that hold them, and no others.
                self._running = subprocess.Popen(
                    ["go", "list", "-deps", "-f", "", programs()[name].package],
                    cwd=wrapper,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                self._running.wait()
            if self._stopped.is_set():
                return

    def stop(self) -> None:
        """End the download under way."""
        self._stopped.set()
        if self._running is not None and self._running.poll() is None:
            self._running.terminate()


@contextlib.contextmanager
def downloading_ahead(names: Sequence[str]) -> Iterator[None]:
    """Download the modules of the later programs while the first one compiles, when the network is idle."""
    downloads = _Downloads(names[1:])
    worker = threading.Thread(target=downloads.run, daemon=True)
    worker.start()
    try:
        yield
    finally:
        downloads.stop()
        worker.join(10)


def part(name: str) -> BuiltPart:
    """The cache entry of one Go program."""
    program = programs()[name]
    instead = [text for both in (*program.instead.items(), *program.changes) for text in both]
    own = program.files().values() or [""]
    sources = (program.module, program.package, *program.replaces, *instead, *own)
    revision = [program.revision] if program.revision else []
    recipe = "\n".join((*sources, program.ldflags, *program.links, *revision, _GO))
    return BuiltPart(name, program.version, recipe, lambda step: _build(program, step))
