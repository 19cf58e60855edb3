"""``make audit``: checkov's findings on production's plan and on the patched old repository, each with a reason or mended.

checkov reads Terraform plans and Kubernetes manifests, not Pulumi's state; so what the stack `prod` declares, as a person
exports it (`pulumi stack export -s prod`), is written as both. Pulumi's names are the provider's own in another case. The
reasons stand in tests/audit.yaml; a finding without one fails.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
REASONS = Path(__file__).with_suffix(".yaml")
TYPES = {
    "aws:acm/certificate:Certificate": "aws_acm_certificate",
    "aws:cloudwatch/logGroup:LogGroup": "aws_cloudwatch_log_group",
    "aws:dynamodb/table:Table": "aws_dynamodb_table",
    "aws:ec2/eip:Eip": "aws_eip",
    "aws:ec2/internetGateway:InternetGateway": "aws_internet_gateway",
    "aws:ec2/launchTemplate:LaunchTemplate": "aws_launch_template",
    "aws:ec2/natGateway:NatGateway": "aws_nat_gateway",
    "aws:ec2/route:Route": "aws_route",
    "aws:ec2/routeTable:RouteTable": "aws_route_table",
    "aws:ec2/routeTableAssociation:RouteTableAssociation": "aws_route_table_association",
    "aws:ec2/securityGroup:SecurityGroup": "aws_security_group",
    "aws:ec2/subnet:Subnet": "aws_subnet",
    "aws:ec2/vpc:Vpc": "aws_vpc",
    "aws:ec2/vpcEndpoint:VpcEndpoint": "aws_vpc_endpoint",
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": "aws_ecr_lifecycle_policy",
    "aws:ecr/repository:Repository": "aws_ecr_repository",
    "aws:eks/addon:Addon": "aws_eks_addon",
    "aws:eks/cluster:Cluster": "aws_eks_cluster",
    "aws:eks/nodeGroup:NodeGroup": "aws_eks_node_group",
    "aws:iam/role:Role": "aws_iam_role",
    "aws:iam/rolePolicy:RolePolicy": "aws_iam_role_policy",
    "aws:kms/key:Key": "aws_kms_key",
    "aws:lb/listener:Listener": "aws_lb_listener",
    "aws:lb/listenerRule:ListenerRule": "aws_lb_listener_rule",
    "aws:lb/loadBalancer:LoadBalancer": "aws_lb",
    "aws:lb/targetGroup:TargetGroup": "aws_lb_target_group",
    "aws:rds/instance:Instance": "aws_db_instance",
    "aws:rds/parameterGroup:ParameterGroup": "aws_db_parameter_group",
    "aws:rds/subnetGroup:SubnetGroup": "aws_db_subnet_group",
    "aws:route53/record:Record": "aws_route53_record",
    "aws:secretsmanager/secret:Secret": "aws_secretsmanager_secret",
    "aws:ssm/parameter:Parameter": "aws_ssm_parameter",
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": "aws_vpc_security_group_egress_rule",
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": "aws_vpc_security_group_ingress_rule",
}
"""Pulumi's type → the provider's; what is missing here has no check of checkov's."""
MAPS = {"tags", "tagsAll", "variables"}
"""Properties that are maps and no blocks."""


def terraform(value: Any, *, is_map: bool = False) -> Any:
    """A property as Terraform has it: snake case, a block as a list, a list of blocks by its singular name."""
    if isinstance(value, list):
        return [terraform(one) for one in value]
    if not isinstance(value, dict) or is_map:
        return value
    found: dict[str, Any] = {}
    for name, inner in value.items():
        if name.startswith("__"):
            continue
        snake = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()
        if isinstance(inner, dict) and name not in MAPS:
            found[snake] = [terraform(inner)]
        elif isinstance(inner, list) and inner and all(isinstance(one, dict) for one in inner):
            found[snake.removesuffix("s")] = terraform(inner)
        else:
            found[snake] = terraform(inner, is_map=name in MAPS)
    return found


def plan(state: dict[str, Any]) -> dict[str, Any]:
    """A Terraform plan of what a stack declares at AWS."""
    resources = [
        {
            "address": f"{kind}.{re.sub(r'[^a-z0-9]', '_', one['urn'].rpartition('::')[2].lower())}",
            "mode": "managed",
            "type": kind,
            "name": re.sub(r"[^a-z0-9]", "_", one["urn"].rpartition("::")[2].lower()),
            "provider_name": "registry.terraform.io/hashicorp/aws",
            "values": terraform(one.get("inputs", {})),
        }
        for one in state["deployment"]["resources"]
        if (kind := TYPES.get(one["type"]))
    ]
    changes = [
        {
            **{key: one[key] for key in one if key != "values"},
            "change": {"actions": ["create"], "before": None, "after": one["values"]},
        }
        for one in resources
    ]
    return {
        "format_version": "1.2",
        "terraform_version": "1.9.0",
        "planned_values": {"root_module": {"resources": resources}},
        "resource_changes": changes,
        "configuration": {"root_module": {}},
    }


def manifests(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a stack declares in the cluster, as plain manifests."""
    for one in state["deployment"]["resources"]:
        inputs = one.get("inputs", {})
        if one["type"].startswith("kubernetes:") and "kind" in inputs and "metadata" in inputs:
            text = json.dumps(inputs)
            if "4dabf18193072939515e22adb298388d" not in text:  # the mark of an encrypted value
                yield {key: value for key, value in inputs.items() if not key.startswith("__")}


def checked(program: str, folder: Path, *frameworks: str) -> dict[str, set[str]]:
    """Failed checks of a folder: check and what it says → the resources that fail it."""
    result = subprocess.run(
        [
            program,
            "-d",
            str(folder),
            "--framework",
            *frameworks,
            "-o",
            "json",
            "--quiet",
            "--compact",
            "--skip-download",
        ],
        text=True,
        capture_output=True,
        check=False,
    )
    answers = json.loads(result.stdout)
    found: dict[str, set[str]] = {}
    for answer in answers if isinstance(answers, list) else [answers]:
        for one in answer.get("results", {}).get("failed_checks", []):
            found.setdefault(f"{one['check_id']} {one['check_name']}", set()).add(one["resource"])
    return found


def compare(title: str, found: dict[str, set[str]], reasons: dict[str, str]) -> list[str]:
    """Findings that have no reason."""
    return [
        f"{title}: {name}: {', '.join(sorted(resources))}"
        for name, resources in sorted(found.items())
        if name.partition(" ")[0] not in reasons
    ]


def patched(target: Path) -> None:
    """The old repository with every patch, but for the Terraform that no patch is for."""
    shutil.copytree(REPOSITORY / "legacy", target, ignore=shutil.ignore_patterns("terraform-modules"))
    for patch in sorted((REPOSITORY / "patches").glob("*.diff")):
        subprocess.run(["git", "apply", str(patch)], cwd=target, check=True)


def main(program: str, export: str) -> int:
    """Check both; 1 if anything is to be mended or explained."""
    reasons = yaml.safe_load(REASONS.read_text())
    state = json.loads(Path(export).read_text())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        patched(folder / "patched")
        aws, cluster = folder / "aws", folder / "cluster"
        for one in (aws, cluster):
            one.mkdir()
        (aws / "tfplan.json").write_text(json.dumps(plan(state)))
        (cluster / "all.yaml").write_text(yaml.safe_dump_all(manifests(state)))
        lines = [
            *compare("AWS", checked(program, aws, "terraform_plan"), reasons["aws"]),
            *compare("cluster", checked(program, cluster, "kubernetes"), reasons["cluster"]),
            *compare(
                "patches",
                checked(program, folder / "patched", "terraform", "dockerfile", "github_actions", "helm", "secrets"),
                reasons["patches"],
            ),
        ]
    print("\n".join(lines) if lines else "every finding of checkov has a reason (tests/audit.yaml)")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
