"""Actions on a twin that several test modules share."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
import yaml

from twin import config, pulumi
from twin.paths import REPOSITORY


def aws(twin: config.Twin, service: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=twin.aws_endpoint,
        region_name=config.region(),
        aws_access_key_id=config.ACCESS_KEY_ID,
        aws_secret_access_key=config.SECRET_ACCESS_KEY,
    )


def command(
    twin: config.Twin, argv: Sequence[str], *, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        argv,
        cwd=REPOSITORY,
        env={**os.environ, **pulumi.environment(twin), **environment},
        text=True,
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert not check or result.returncode == 0, f"{argv}\n{result.stdout}\n{result.stderr}"
    return result


def kubectl(twin: config.Twin, *arguments: str) -> Any:
    return json.loads(command(twin, ["kubectl", *arguments, "-o", "json"]).stdout)


def settings_file(twin: config.Twin, directory: Path, changes: dict[str, Any]) -> Path:
    """The twin's settings with changes (None removes a setting), for one command."""
    document = yaml.safe_load((twin.directory / "Pulumi.prod.yaml").read_text())
    for key, value in changes.items():
        if value is None:
            document["config"].pop(key, None)
        else:
            document["config"][key] = value
    directory.mkdir(exist_ok=True)
    path = directory / "Pulumi.prod.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def summary(text: str) -> dict[str, int]:
    """The engine's own count of what it did: {"unchanged": 97, "updated": 1}."""
    counts: dict[str, int] = {}
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip() == "Resources:")
    for line in lines[start + 1 :]:
        words = line.replace("+-", "").replace("+", "").replace("~", "").replace("-", "").split()
        if len(words) < 2 or not words[0].isdigit():
            break
        counts[" ".join(words[1:])] = int(words[0])
    return counts
