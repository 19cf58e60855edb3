"""A lost state file with the real CLI: written to a versioned bucket by Pulumi, deleted, put back, read by Pulumi as it was."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from infra.commands.state_versions import STATE_KEY
from infra.names import state_bucket
from twin.build import programs
from twin.config import ACCOUNT_ID, Twin
from twin.paths import REPOSITORY, cache_directory

pytestmark = pytest.mark.engine

REGION = "eu-central-1"
BUCKET = state_bucket("prod", ACCOUNT_ID, REGION)


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


def test_a_deleted_state_file_comes_back_from_its_versions(endpoint: str, tmp_path: Path) -> None:
    make: Any = boto3.client
    s3 = make("s3", endpoint_url=endpoint, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    settings = tmp_path / "settings" / "Pulumi.prod.yaml"
    settings.parent.mkdir()
    document = yaml.safe_load((REPOSITORY / "Pulumi.prod.yaml").read_text())
    document["config"]["shopcat:awsEndpoint"] = endpoint
    settings.write_text(yaml.safe_dump(document))
    shutil.copy(REPOSITORY / "Pulumi.yaml", tmp_path)
    twin = Twin("none", 15, cache_directory(), tmp_path, simulated=True)
    env = {
        **os.environ,
        "PATH": os.pathsep.join([*map(str, programs.path_directories(twin)), os.environ["PATH"]]),
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_BACKEND_URL": f"s3://{BUCKET}?region={REGION}&endpoint={endpoint}&s3ForcePathStyle=true",
        "PULUMI_CONFIG_PASSPHRASE": "none",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": REGION,
    }

    def run(*argv: str, cwd: Path = tmp_path) -> str:
        result = subprocess.run(
            argv, cwd=cwd, env=env, text=True, capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
        assert result.returncode == 0, f"{argv}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def versions(*words: str) -> str:
        env["PULUMI_OPTION_CONFIG_FILE"] = str(settings)
        try:
            return run(sys.executable, "-m", "infra.commands.state_versions", *words, cwd=REPOSITORY)
        finally:
            del env["PULUMI_OPTION_CONFIG_FILE"]

    run("pulumi", "stack", "init", "prod", "--secrets-provider", "passphrase", "--non-interactive")
    exported = json.loads(run("pulumi", "stack", "export", "-s", "prod"))
    component = {
        "urn": "urn:pulumi:prod::shopcat::shopcat:index:Seal::seal",
        "type": "shopcat:index:Seal",
        "custom": False,
    }
    exported["deployment"]["resources"] = [component]
    (tmp_path / "deployment.json").write_text(json.dumps(exported))
    run("pulumi", "stack", "import", "-s", "prod", "--file", "deployment.json")
    before = json.loads(run("pulumi", "stack", "export", "-s", "prod"))
    s3.delete_object(Bucket=BUCKET, Key=STATE_KEY)
    assert '"prod"' not in run("pulumi", "stack", "ls", "--json")
    newest = versions().splitlines()[0]
    assert "1 resources" in newest
    assert "present" not in newest
    assert "is the present one" in versions(newest.split()[0])
    assert json.loads(run("pulumi", "stack", "export", "-s", "prod")) == before
