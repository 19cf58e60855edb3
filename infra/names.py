"""Names that more than one package needs, and the small functions that make names: plain values, nothing is read or declared.

A name that only one package needs stands in that package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, get_args

from infra.errors import SettingsError

PROJECT = "shopcat"
"""Pulumi puts it before a key that has no namespace (loaders.go, stackConfigNamespacedWithProject)."""
MAIN_BRANCH = "main"
EXTERNAL_SECRETS_API = "external-secrets.io/v1"
"""API version of the operator's objects, as their `apiVersion` has it."""

# The shop and its two colours ----------------------------------------------------------------------------------------

Colour = Literal["blue", "green"]
COLOURS: tuple[Colour, ...] = get_args(Colour)

APPLICATION = "shopcat"
APPLICATION_PORT = 8080
HEALTH_PATH = "/healthz"
COLOUR_HEADER = "X-ShopCat-Colour"
"""A request with it goes to that colour, for the smoke test; an answer may have it, and then says which colour gave it."""
SHOP_NAMESPACE = "shopcat"
SHOP_PRIORITY_CLASS = "shopcat-production"
RUNTIME_USER = 10001
GATES_LABEL = "elbv2.k8s.aws/pod-readiness-gate-inject"
LOAD_BALANCER = "shopcat"
RELEASE_REPOSITORY = "shopcat"

_LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_TAG = re.compile(rf"(?=.{{1,40}}$)(?!.*--){_LABEL}(\.{_LABEL})*")
"""A DNS subdomain, since objects are named by it: each part between dots begins and ends with a letter or digit
(k8s.io/apimachinery/pkg/util/validation, IsDNS1123Subdomain)."""


def other_colour(colour: Colour) -> Colour:
    """Return the other of the two colours."""
    return "green" if colour == "blue" else "blue"


def workload_name(colour: Colour) -> str:
    """Return the name of the colour's Deployment, Service, binding, PodDisruptionBudget and target group: constant for ever."""
    return f"{APPLICATION}-{colour}"


COLOUR_LABEL = "shopcat/colour"
RELEASE_LABEL = "shopcat/release"
POD_SECURITY_LABEL = "pod-security.kubernetes.io/enforce"
POD_SECURITY = "restricted"
"""Level that the namespaces of this program ask for (kubernetes.io/docs/concepts/security/pod-security-standards)."""


def colour_selector(colour: Colour) -> dict[str, str]:
    """Return the labels of the colour's pods and no others; immutable in a Deployment, so never more than this."""
    return {"app.kubernetes.io/name": APPLICATION, COLOUR_LABEL: colour}


def check_tag(tag: str) -> str:
    """Return the tag, if a release may have it.

    Raises:
        ShopCatError: `latest`, or a name that Kubernetes objects can't carry.
    """
    if tag == "latest":
        raise SettingsError(
            "tag latest: a tag that moves can't be released; push the image under a tag of its own (v<semver>) "
            "and set shopcat:tag to that"
        )
    if not _TAG.fullmatch(tag):
        raise SettingsError(
            f"tag {tag[:60]!r}: expected up to 40 lower-case letters, digits, dots and single dashes, each part between "
            "dots beginning and ending with a letter or digit, such as v1.4.0"
        )
    return tag


# The database --------------------------------------------------------------------------------------------------------

DATABASE_PORT = 5432
DATABASE_NAMESPACE = "shopcat-database"
DATABASE_RESTORED_JOB = "database-restored"
"""Job that looks at a restored database; its log says what is in it."""
RESTORED = "-restored"
"""Ends the names of what there is once for the first database and once for a restored one."""
RESTORED_SNAPSHOT = "shopcat-final-restored-"
"""Begins the name of the snapshot that a restored database leaves; the moment ends it."""
APPLICATION_SECRET = "shopcat/application"  # noqa: S105 - a name
"""The application's own secret in Secrets Manager, JSON with the keys of SECRET_KEYS: where the database is, and the role that
owns the tables. Releases from before each colour had a password sign in as that role."""


def login_secret(colour: Colour) -> str:
    """Return the name of the secret of a colour's own database role; each version is one password."""
    return f"shopcat/login-{colour}"


def login_role(owner: str, colour: Colour) -> str:
    """Return the database role that a colour's pods sign in as, a member of the role that owns the tables."""
    return f"{owner}_{colour}"


LOGIN_KEYS = ("username", "password")
"""Keys of SECRET_KEYS that a login's secret has; the others say where the database is."""
SECRET_KEYS: Mapping[str, str] = {
    "DATABASE_HOST": "host",
    "DATABASE_PORT": "port",
    "DATABASE_NAME": "dbname",
    "DATABASE_USER": "username",
    "DATABASE_PASSWORD": "password",
}
"""Environment variable of the pods → key in the release's Secret; the keys are those of the JSON in Secrets Manager."""

POD_LOGS_GROUP = "/shopcat/pods"
"""Log group of production's pods and the add-ons, where `shopcat:monitoring.logs` is set."""
METRICS_NAMESPACE = "ShopCat"
"""Namespace in CloudWatch of this program's own metrics."""
UNCLOSED_METRIC = "PreviewsNotClosed"
"""Previews that one run of the reaper could not close (pipeline/reaper.py); 0 says that it ran to its end."""
UNSYNCED_METRIC = "SecretsNotSynced"
"""Times that External Secrets failed on a secret of production's, counted in its log."""
SILENT_NODE_METRIC = "NodesSilent"
"""Times that the control plane has found a node silent for longer than it may be, counted in its log."""
RESTART_METRIC = "ContainersBackedOff"
"""Times that a kubelet has put off a container of production's or an add-on that keeps failing, counted in its log."""
ALARMS_KEY = "alarms"
"""Logical name of the KMS key of the alarms' topic: it encrypts messages under way and keeps nothing."""

# Previews ------------------------------------------------------------------------------------------------------------

CLUSTER_INFO_PARAMETER = "/shopcat/contract"
"""SSM parameter in which production publishes what a preview needs to know of it."""
PREVIEW_SLOTS_TABLE = "shopcat-previews"
PREVIEW_REPOSITORY = f"{RELEASE_REPOSITORY}-preview"
PREVIEW_NAMESPACE_PATTERN = "^pr-[1-9][0-9]{0,8}$"
"""A preview's namespace, as a regular expression that Kubernetes and Python read alike."""
PREVIEW_LABEL = "shopcat/preview"
PREVIEW_PRIORITY_CLASS = "shopcat-preview"
PREVIEW_SECRET_PATH = "shopcat-preview"  # noqa: S105 - a path
PREVIEW_SESSION_TAG = "shopcat-preview"
"""Tag of the session in which the operator reads a preview's secrets; its value is the namespace."""

# Who may do what: roles in AWS, groups and users in Kubernetes -------------------------------------------------------

RELEASE_ROLE, PREVIEW_ROLE, CLEANUP_ROLE = "shopcat-release", "shopcat-preview", "shopcat-preview-cleanup"
PREVIEW_SECRETS_ROLE = "shopcat-preview-secrets"
PREVIEW_GROUP = "shopcat-previews"
PREVIEW_USER_PREFIX = "shopcat-preview:"
"""The Kubernetes user of pull request <n> is this and <n>; EKS wants the colon before the session's name."""
CLEANUP_GROUP = "shopcat-preview-cleanup"
CLEANUP_USER_PREFIX = "shopcat-preview-cleanup:"
PREVIEW_CLUSTER_ROLE = "shopcat-preview"
"""ClusterRole of what a preview may do inside its namespace, and the RoleBinding's name there."""
CLUSTER_ADMIN_POLICY = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"

# Where stacks keep their state: a bucket and a key for production, others for previews; made by `make bootstrap` -----

PRODUCTION_STACK = "prod"
PREVIEWS_BACKEND = "previews"
STATE_BACKENDS = (PRODUCTION_STACK, PREVIEWS_BACKEND)


def state_bucket(stack: str, account: str, region: str) -> str:
    """Return the name of a state bucket; such names are global, so account and region are part of them."""
    return f"shopcat-state-{stack}-{account}-{region}"


def state_key_alias(stack: str) -> str:
    """Return the name of the key that encrypts a stack's secrets and state."""
    return f"alias/shopcat-state-{stack}"


def state_url(stack: str, account: str, region: str, owner: str = "") -> str:
    """Return the URL for `pulumi login`; with ``owner`` (``AROA…:<n>``, as `aws sts get-caller-identity` prints it) a preview's.

    Within the previews' bucket each pull request has a folder of its own, named by whoever may use it: `aws:userid` of the
    preview role's session (infra/access/iam_policies.py).
    """
    folder = f"/{owner}" if owner else ""
    return f"s3://{state_bucket(stack, account, region)}{folder}?region={region}"
