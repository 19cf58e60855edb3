"""The real Pulumi engine, set up for the twin: home, plugins, state, settings overlay, environment."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import boto3
import yaml

from twin import config
from twin.build import programs
from twin.config import PartStatus, Twin
from twin.errors import TwinError
from twin.host import pki
from twin.images import registry_client
from twin.kubernetes import charts
from twin.loadbalancer import hostnames
from twin.paths import REPOSITORY

STACK = "prod"
PROVIDERS = ("aws", "kubernetes", "eks")


_ORIGIN = "twin-origin"
"""A file of this name, in each plugin's folder of a twin, says where the plugin comes from."""


def _plugin_directory(twin: Twin, name: str) -> Path:
    return twin.directory / "pulumi-home" / "plugins" / f"resource-{name}-v{version(f'pulumi-{name}')}"


def _installed_plugin(twin: Twin, name: str) -> Path | None:
    """Folder of the release of exactly the SDK's version, if a person has installed it.

    `make env` names a twin's own home: what is linked from there leads to a person's, the twin's own doesn't count.
    """
    home = Path(os.environ.get("PULUMI_HOME", str(Path.home() / ".pulumi")))
    program = (home / "plugins" / _plugin_directory(twin, name).name / f"pulumi-resource-{name}").resolve()
    is_own = (program.parent / _ORIGIN).exists() or twin.cache.resolve() in program.parents
    return None if is_own or not program.exists() else program.parent


def _install_plugin(twin: Twin, name: str) -> None:
    """Put a plugin where the engine looks for it: the release, else upstream's as built here, else the stand-in.

    The engine ignores a plugin's folder that is a symlink, so the folder is a real one and its files are links.
    """
    installed = _installed_plugin(twin, name)
    directory = _plugin_directory(twin, name)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    program = directory / f"pulumi-resource-{name}"
    if installed is not None:
        for path in installed.iterdir():
            (directory / path.name).symlink_to(path)
        origin = f"upstream {version(f'pulumi-{name}')}, as installed in {installed}"
    elif name == "kubernetes":
        program.symlink_to(programs.program(twin, program.name))
        part = programs.part(twin, "pulumi-kubernetes")
        origin = f"upstream {part.version}, {'built here' if part.name == 'pulumi-kubernetes' else 'its release'}"
    else:
        program.write_text(
            f'#!/bin/sh\nPYTHONPATH="{REPOSITORY}" PYTHONDONTWRITEBYTECODE= exec "{sys.executable}" -m twin.plugins.{name} "$@"\n'
        )
        program.chmod(0o755)
        origin = "stand-in"
    (directory / _ORIGIN).write_text(origin)


def _install_command(twin: Twin, name: str, module: str) -> None:
    """A program of the twin's own under the name that others call it by, before any real one on PATH."""
    program = twin.directory / "bin" / name
    program.parent.mkdir(exist_ok=True)
    known = " ".join(f"{key}={shlex.quote(value)}" for key, value in config.module_environment(twin).items())
    program.write_text(f'#!/bin/sh\n{known} PYTHONDONTWRITEBYTECODE=1 exec "{sys.executable}" -m {module} "$@"\n')
    program.chmod(0o755)


def overlay(twin: Twin) -> dict[str, Any]:
    """The settings in which the twin's production stack differs from the committed ones: where things are."""
    return {
        "shopcat:awsEndpoint": twin.aws_endpoint,
        "shopcat:chartDigests": charts.digests(twin),
        "shopcat:chartMirror": dict.fromkeys(("loadBalancerController", "externalSecrets"), twin.chart_mirror),
        "shopcat:domain": hostnames.domain(twin),
        "shopcat:previewDomain": hostnames.preview_domain(twin),
        "shopcat:images": {**registry_client.tool_images(twin), **charts.addon_images(twin)},
        "shopcat:vpc": {"cidr": twin.vpc_cidr},
    }


def _settings_file(twin: Twin) -> Path:
    return twin.directory / f"Pulumi.{STACK}.yaml"


def write_settings(twin: Twin) -> Path:
    """The committed Pulumi.prod.yaml with the overlay laid over it, and the twin's own encryption in place of KMS."""
    document = yaml.safe_load((REPOSITORY / f"Pulumi.{STACK}.yaml").read_text())
    for key, value in overlay(twin).items():
        settings = document["config"]
        settings[key] = {**settings.get(key, {}), **value} if isinstance(value, dict) else value
    path = _settings_file(twin)
    # The salt that `pulumi stack init` wrote stays; on AWS a KMS key stands in its place.
    previous = yaml.safe_load(path.read_text()) if path.exists() else {}
    for key in ("secretsprovider", "encryptedkey", "encryptionsalt"):
        document.pop(key, None)
    document["secretsprovider"] = "passphrase"
    if "encryptionsalt" in previous:
        document["encryptionsalt"] = previous["encryptionsalt"]
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def client(twin: Twin, service: str) -> Any:
    """A boto3 client of the twin's AWS."""
    make: Any = boto3.client
    return make(
        service,
        endpoint_url=twin.aws_endpoint,
        region_name=config.region(),
        aws_access_key_id=config.ACCESS_KEY_ID,
        aws_secret_access_key=config.SECRET_ACCESS_KEY,
    )


def backend_url(folder: Path) -> str:
    """The URL of a state backend in a folder, written so that an engine killed at any moment leaves it readable.

    Each file is renamed into place; the `.attrs` beside it that the engine would write by default is not, and an empty
    one makes every command of every stack fail with "EOF".
    """
    return f"file://{folder}?metadata=skip"


def environment(twin: Twin) -> dict[str, str]:
    """Environment in which ``pulumi``, ``kubectl`` and ``aws`` work on the twin."""
    directories = [
        str(twin.directory / "bin"),
        str(Path(sys.executable).parent),
        *map(str, programs.path_directories(twin)),
    ]
    return {
        **twin.aws_environment(),
        "PATH": os.pathsep.join([*directories, os.environ.get("PATH", "")]),
        "PULUMI_HOME": str(twin.directory / "pulumi-home"),
        "PULUMI_BACKEND_URL": backend_url(twin.directory / "pulumi-state"),
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(twin.directory / "passphrase"),
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_OPTION_CONFIG_FILE": str(_settings_file(twin)),
        "AWS_ENDPOINT_URL": twin.aws_endpoint,
        "KUBECONFIG": str(twin.kubeconfig),
        # The program's modules are compiled once, not at every update.
        "PYTHONDONTWRITEBYTECODE": "",
        # Whatever calls the shop's own URL must trust the twin's authority.
        "SSL_CERT_FILE": str(pki.ca_file(twin)),
    }


def run(
    twin: Twin,
    arguments: Sequence[str],
    *,
    capture: bool = False,
    check: bool = True,
    config_file: Path | None = None,
    directory: Path = REPOSITORY,
) -> subprocess.CompletedProcess[str]:
    """Run ``pulumi`` in the repository.

    Raises:
        TwinError: it failed (only with ``check``); its output has been shown.
    """
    env = {**os.environ, **environment(twin)}
    if directory != REPOSITORY:
        del env["PULUMI_OPTION_CONFIG_FILE"]
    if config_file is not None:
        env["PULUMI_OPTION_CONFIG_FILE"] = str(config_file)
    result = subprocess.run(
        ["pulumi", *arguments, "--non-interactive"],
        cwd=directory,
        env=env,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.PIPE if capture else None,
    )
    if check and result.returncode != 0:
        shown = f":\n{result.stdout}{result.stderr}" if capture else "; what it says is above"
        message = f"`pulumi {' '.join(arguments)}` failed (exit {result.returncode}){shown}"
        raise TwinError(message)
    return result


@contextmanager
def throw_away_settings(twin: Twin) -> Iterator[Path]:
    """A copy of the settings for one command: ``pulumi up -c`` writes what it is given into its file."""
    with tempfile.TemporaryDirectory(dir=twin.directory) as directory:
        copy = Path(directory) / f"Pulumi.{STACK}.yaml"
        shutil.copy(_settings_file(twin), copy)
        yield copy


def _init(twin: Twin) -> None:
    """Make the stack. `stack init` writes its salt beside Pulumi.yaml whatever it is told, so it is run on a copy."""
    settings = _settings_file(twin)
    with tempfile.TemporaryDirectory(dir=twin.directory) as directory:
        shutil.copy(REPOSITORY / "Pulumi.yaml", directory)
        run(
            twin,
            ["stack", "init", STACK, "--secrets-provider", "passphrase"],
            capture=True,
            directory=Path(directory),
        )
        initialised = yaml.safe_load((Path(directory) / f"Pulumi.{STACK}.yaml").read_text())
    document = yaml.safe_load(settings.read_text())
    document["encryptionsalt"] = initialised["encryptionsalt"]
    settings.write_text(yaml.safe_dump(document, sort_keys=False))


def up(twin: Twin) -> None:
    """Make home, plugins, state backend, settings and the stack itself."""
    for name in PROVIDERS:
        _install_plugin(twin, name)
    # Kubeconfigs call `aws eks get-token`; the pipeline calls buildah.
    _install_command(twin, "aws", "twin.aws.cli")
    _install_command(twin, "buildah", "twin.images.buildah")
    (twin.directory / "pulumi-state").mkdir(exist_ok=True)
    passphrase = twin.directory / "passphrase"
    if not passphrase.exists():
        passphrase.touch(mode=0o600)
        passphrase.write_text(secrets.token_urlsafe(24))
    write_settings(twin)
    listed = run(twin, ["stack", "ls", "--json"], capture=True)
    if f'"name": "{STACK}"' not in listed.stdout:
        _init(twin)
    run(twin, ["stack", "select", STACK], capture=True)


def down(twin: Twin) -> None:
    """Do nothing: the state goes with the twin's folder, and nothing runs between commands."""


def status(twin: Twin) -> list[PartStatus]:
    """Report the plugins that the engine will use."""
    lines = []
    for name in PROVIDERS:
        directory = _plugin_directory(twin, name)
        works = (directory / f"pulumi-resource-{name}").exists() and (directory / _ORIGIN).exists()
        lines.append(
            PartStatus(f"plugin {name}", ok=works, detail=(directory / _ORIGIN).read_text() if works else "missing")
        )
    return lines
