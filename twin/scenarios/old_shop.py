"""The shop as it runs before the takeover: legacy/, brought up by the real Terraform and the real Helm.

Where Terraform has no AWS provider, the same calls are made from a recorded state of it (twin/scenarios/recorded_state.py).

What legacy/README.md says was made by hand is made here by hand too: the cluster's add-ons, which EKS brings along, and the
load balancer controller. What differs from the files is where things are: the network's addresses, the Kubernetes version
that runs, the image's registry, and the database's address and password.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import shutil
import subprocess
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from twin import config, pulumi
from twin.aws.eks import ADDONS
from twin.config import Twin
from twin.errors import TwinError
from twin.host import processes
from twin.loadbalancer.addresses import NodeAddresses
from twin.paths import REPOSITORY
from twin.scenarios import production
from twin.scenarios.recorded_state import RecordedState

NAMESPACE = "shopcat"
CLUSTER = "shopcat"
CONTROLLER = "aws-load-balancer-controller"
_POLICY_PAGE = {"Effect": "Allow", "Action": ["elasticloadbalancing:*", "ec2:*"], "Resource": "*"}
"""Wider than upstream's iam_policy.json; the twin's AWS checks no policy."""


class OldShop:
    """legacy/ on a twin that has no production stack yet."""

    def __init__(self, twin: Twin, directory: Path) -> None:
        self.twin, self.directory = twin, directory
        self.without_terraform = ""
        """Why Terraform was not used; empty if it was."""
        self._recorded: dict[str, Any] = {}
        self.terraform_directory = directory / "terraform"
        self._password_file = self.terraform_directory / "database.auto.tfvars.json"

    def bring_up(self) -> None:
        """Make network, cluster, registry and database, then push `latest` and install chart and Ingress.

        Raises:
            TwinError: a tool is missing or failed; its output is in the message.
        """
        self.without_terraform = self.find_provider()
        if self.without_terraform:
            print(f"without Terraform ({self.without_terraform}): the same calls from a recorded state", flush=True)
            self._recorded = self.apply_recorded()
        else:
            self.terraform("apply", "-auto-approve", "-input=false")
        self._addons()
        self._controller()
        self.push("latest")
        self.kubectl("apply", "-f", str(REPOSITORY / "legacy" / "k8s" / "namespace.yaml"))
        self.helm_upgrade()
        self.kubectl("apply", "-f", str(REPOSITORY / "legacy" / "k8s" / "ingress.yaml"))
        processes.wait_until(self.serves, "a page through the old Ingress", timeout_seconds=120)

    # Terraform --------------------------------------------------------------------------------------------------------

    def apply_recorded(self) -> dict[str, Any]:
        """Make by the recorded state what Terraform would have made; return the state that it would have."""
        version = self._write_terraform()
        return RecordedState(self.twin, kubernetes_version=version, password=self.database_password()).apply()

    def find_provider(self) -> str:
        """Let Terraform find its AWS provider, where its own configuration says; return why it can't be used."""
        self._write_terraform()
        if shutil.which("terraform") is None:
            return "terraform is not on PATH"
        try:
            self.terraform("init", "-input=false", "-no-color")
        except TwinError as error:
            lines = [line.strip("│╷╵ ") for line in str(error).splitlines()]
            return next((line for line in lines if line.startswith("Error:")), lines[-1])
        return ""

    def _write_terraform(self) -> str:
        """Copy legacy/terraform, with the twin's addresses and version in place of the files' own; return that version."""
        shutil.copytree(REPOSITORY / "legacy" / "terraform", self.terraform_directory, dirs_exist_ok=True)
        first, second, third, _ = ipaddress.IPv4Network(self.twin.vpc_cidr).network_address.exploded.split(".")
        prefix, start = f"{first}.{second}", int(third)
        cluster = yaml.safe_load((REPOSITORY / "Pulumi.prod.yaml").read_text())["config"]["shopcat:cluster"]
        version = str(cluster["kubernetesVersion"])
        path = self.terraform_directory / "eks.tf"
        text = path.read_text()
        for old, new in (
            ('"10.0.0.0/16"', f'"{self.twin.vpc_cidr}"'),
            ('"10.0.${64 + count.index}.0/24"', f'"{prefix}.${{{start} + count.index}}.0/24"'),
            # A node's pods have addresses of its zone's private subnet (twin/config.py, pod_cidr).
            ('"10.0.${32 * count.index}.0/19"', f'"{prefix}.${{{start + 8} + 4 * count.index}}.0/22"'),
            ('"1.29"', f'"{version}"'),
        ):
            if old not in text:
                raise TwinError(
                    f"legacy/terraform/eks.tf has no {old} any more; twin/scenarios/old_shop.py replaces it"
                )
            text = text.replace(old, new)
        path.write_text(text)
        if not self._password_file.exists():
            self._password_file.touch(mode=0o600)
            self._password_file.write_text(json.dumps({"database_password": secrets.token_urlsafe(24)}))
        return version

    def terraform(self, *arguments: str) -> str:
        """Run Terraform in the copied folder; return its output.

        Raises:
            TwinError: it failed, or it was not used for this shop.
        """
        if self.without_terraform:
            raise TwinError(f"this shop was made without Terraform: {self.without_terraform}")
        return self._run(["terraform", *arguments], self.terraform_directory)

    def state(self) -> dict[str, Any]:
        """Return Terraform's state; it holds the database's password."""
        state: dict[str, Any] = self._recorded or json.loads(self.terraform("state", "pull"))
        return state

    # By hand ----------------------------------------------------------------------------------------------------------

    def _addons(self) -> None:
        """Add what EKS puts into a new cluster by itself, and the agent that pod identities need."""
        eks = pulumi.client(self.twin, "eks")
        present = eks.list_addons(clusterName=CLUSTER)["addons"]
        for name in ADDONS:
            if name not in present:
                eks.create_addon(clusterName=CLUSTER, addonName=name)

        def active() -> bool:
            states = {
                name: eks.describe_addon(clusterName=CLUSTER, addonName=name)["addon"]["status"] for name in ADDONS
            }
            if "DEGRADED" in states.values():
                raise TwinError(f"add-ons of the old cluster: {states}")
            return set(states.values()) == {"ACTIVE"}

        processes.wait_until(active, "the old cluster's add-ons", timeout_seconds=300)

    def _controller(self) -> None:
        iam, eks = pulumi.client(self.twin, "iam"), pulumi.client(self.twin, "eks")
        trust = {
            "Effect": "Allow",
            "Principal": {"Service": "pods.eks.amazonaws.com"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        }
        name = f"old-{CONTROLLER}"
        role = iam.create_role(
            RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        )["Role"]
        policy = json.dumps({"Version": "2012-10-17", "Statement": [_POLICY_PAGE]})
        iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=policy)
        eks.create_pod_identity_association(
            clusterName=CLUSTER, namespace="kube-system", serviceAccount=CONTROLLER, roleArn=role["Arn"]
        )
        vpc = eks.describe_cluster(name=CLUSTER)["cluster"]["resourcesVpcConfig"]["vpcId"]
        values = {
            "clusterName": CLUSTER,
            "region": config.region(),
            "vpcId": vpc,
            "replicaCount": 2,
            "serviceAccount": {"create": True, "name": CONTROLLER},
            "env": {"AWS_ENDPOINT_URL": self.twin.aws_endpoint},
        }
        self._helm(CONTROLLER, "kube-system", CONTROLLER, values, "--repo", self.twin.chart_mirror)

    # The shop ---------------------------------------------------------------------------------------------------------

    def push(self, tag: str) -> None:
        """Build the application and push it, as the old workflow does."""
        production.push_image(self.twin, REPOSITORY / "twin" / "application", tag)

    def helm_upgrade(self) -> None:
        """Run `helm upgrade --install` as the old workflow does."""
        (instance,) = pulumi.client(self.twin, "rds").describe_db_instances()["DBInstances"]
        values = {
            "image": {"repository": f"{config.registry_host()}/{production.REPOSITORY_NAME}"},
            "database": {
                "host": instance["Endpoint"]["Address"],
                "port": str(instance["Endpoint"]["Port"]),
                "name": instance["DBName"],
                "user": instance["MasterUsername"],
                "password": self.database_password(),
            },
        }
        self._helm("shopcat", NAMESPACE, str(REPOSITORY / "legacy" / "helm" / "shopcat"), values)

    def database_password(self) -> str:
        """Return the master user's password, which Terraform was given; never print it."""
        return str(json.loads(self._password_file.read_text())["database_password"])

    def load_balancers(self) -> list[dict[str, Any]]:
        """Return what the controller made for the Ingress, as AWS describes it; none while there is none."""
        listed = pulumi.client(self.twin, "elbv2").describe_load_balancers()["LoadBalancers"]
        return [each for each in listed if each["LoadBalancerName"].startswith(f"k8s-{NAMESPACE}-")]

    def addresses(self) -> list[str]:
        """Return the addresses of the old load balancer's nodes; none while there is no load balancer."""
        try:
            arns = [each["LoadBalancerArn"] for each in self.load_balancers()]
            return [address for arn in arns for address in NodeAddresses(self.twin).of(arn, loopback=True)]
        except KeyError:  # the load balancer has not seen it yet
            return []

    def serves(self) -> bool:
        """Ask each of the old load balancer's nodes for a page."""
        pages = [urllib.request.urlopen(f"http://{address}/", timeout=5) for address in self.addresses()]
        return [page.status for page in pages] == [200, 200]

    # Tools ------------------------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl; return its output.

        Raises:
            TwinError: it failed.
        """
        return self._run(["kubectl", *arguments], self.directory)

    def _helm(self, name: str, namespace: str, chart: str, values: dict[str, Any], *more: str) -> None:
        path = self.directory / f"{name}-values.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(values))
        try:
            self._run(
                ["helm", "upgrade", "--install", name, chart, "-n", namespace, "-f", str(path), "--wait", *more],
                self.directory,
            )
        finally:
            path.unlink()

    def _run(self, argv: Sequence[str], directory: Path) -> str:
        environment = {**os.environ, **pulumi.environment(self.twin), "AWS_DEFAULT_REGION": config.region()}
        result = subprocess.run(
            argv, cwd=directory, env=environment, text=True, capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
        if result.returncode != 0:
            raise TwinError(f"{' '.join(argv[:3])} … failed:\n{result.stdout}{result.stderr}")
        return result.stdout
