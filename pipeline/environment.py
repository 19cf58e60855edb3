"""Environment variables that a job reads, with the default of each; its region, AWS clients and application.

| variable | meaning | default |
|---|---|---|
| `APP_SRC` | the application's directory (app_docker/README.md) | refused when an image is to be built |
| `SHOPCAT_BUILDER` | `docker` (buildx) or `buildah` | `docker` |
| `SHOPCAT_BUILD_ARGS` | `NAME=value …` for the Dockerfile | none |
| `SHOPCAT_BUILD_CACHE`, `SHOPCAT_BUILD_CACHE_TO` | directories with layers: to read, if there; to write (docker) | none |
| `PULUMI_BACKEND_URL`, `SHOPCAT_SECRETS_PROVIDER` | where state is, and what encrypts its secrets | what `make bootstrap` made |
| `SHOPCAT_STACK_FILE` | the stack's settings, copied for each command | Pulumi.prod.yaml; for a preview none (Pulumi.pr.yaml) |
| `SHOPCAT_STARTED` | when the job began, seconds since 1970 | no deadline for Pulumi |
| `SHOPCAT_LIMIT_SECONDS` | the job's own limit | 300 |
| `SHOPCAT_TIMES` | a file that gets the steps and their seconds as JSON | none |

GITHUB_* are as GitHub documents them (docs.github.com/actions/reference/workflows-and-actions/variables).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import AwsClients, explain
from infra.settings import check_region, stack_file
from pipeline.errors import PipelineError
from pipeline.plan import PRODUCTION_FILE

REPOSITORY = Path(__file__).resolve().parent.parent


def region() -> str:
    """Return the region of production and its previews, from Pulumi.prod.yaml.

    Raises:
        ShopCatError: that file has none.
    """
    return check_region(stack_file.read_stack_file(PRODUCTION_FILE)["config"].get("aws:region"), PRODUCTION_FILE.name)


def is_monitored() -> bool:
    """Return true if Pulumi.prod.yaml has `shopcat:monitoring`, by which the clean-up role may write its metric.

    Raises:
        ShopCatError: that file can't be read.
    """
    return bool(stack_file.read_stack_file(PRODUCTION_FILE)["config"].get("shopcat:monitoring"))


def aws_clients() -> AwsClients:
    """Return clients of AWS with the job's own credentials."""
    return AwsClients(region())


@contextmanager
def aws_errors(clients: AwsClients, subject: str) -> Iterator[None]:
    """Raise AWS's errors as one message that names the subject of the call.

    Raises:
        AwsError: AWS refuses, or can't be reached.
    """
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise explain(error, subject, clients.endpoint_url) from error


def source_directory(environment: Mapping[str, str]) -> Path:
    """Return the application's directory.

    Raises:
        ShopCatError: not set, or not what app_docker/README.md says it holds.
    """
    app_src = environment.get("APP_SRC", "")
    if not app_src:
        raise PipelineError(
            "APP_SRC is not set: set it (on GitHub as a repository variable) to the directory that holds the application; "
            "app_docker/README.md says what is in it"
        )
    directory = (REPOSITORY / app_src).resolve()
    missing = [name for name in ("requirements.txt", "shopcat") if not (directory / name).exists()]
    if missing:
        raise PipelineError(
            f"APP_SRC={app_src} has no {' and no '.join(missing)}; app_docker/README.md says what it must hold"
        )
    return directory
