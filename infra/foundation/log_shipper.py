"""The log shipper: AWS's build of Fluent Bit on each node sends logs of production's pods and of the add-ons to CloudWatch.

* **What is sent**: containers of this program's own namespaces and of kube-system. Not previews': a pull request's code could
  write as much as it likes, and CloudWatch charges for each byte.
* **The smallest of three.** The EKS add-on amazon-cloudwatch-observability brings an agent for each node and an operator besides,
  which take two more of 17 pod slots, and CloudWatch charges for each of their metrics. The chart aws-for-fluent-bit (0.2.0)
  gives its pods `nodes/proxy`, with which they may run commands in any pod (templates/clusterrole.yaml), and no value takes
  that away. These pods have no right in the cluster and no token: the name of each stream has namespace, pod and container.
* **Nothing waits for it.** A release does not fail because a log can't be sent, so the update does not wait for the pods either.
* **Of the kubelet's log** the lines alone that tell of a container that keeps failing in those namespaces.
* **Counted in them**, for infra/foundation/alarms.py: failures on a secret of production's, and a container that keeps failing.
* Its room is counted by infra/capacity.py. Its rights are two calls on one log group, which this program makes and AWS empties
  after `retentionDays`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes

from infra import capacity
from infra.access import addon_policies
from infra.foundation.addon_isolation import CONTROLLER_NAMESPACE, HTTPS, OPERATOR, addon_policy_spec
from infra.foundation.addons import let_identity_settle, requests
from infra.foundation.alarms import RESTART_PATTERN
from infra.foundation.log_metric import log_metric
from infra.foundation.pod_role import pod_role
from infra.names import DATABASE_NAMESPACE, POD_LOGS_GROUP, RESTART_METRIC, SHOP_NAMESPACE, UNSYNCED_METRIC

if TYPE_CHECKING:
    from infra.access.iam_policies import AwsScope
    from infra.settings import Settings
    from infra.settings.monitoring import LogSettings

SHIPPER = "log-shipper"
SHIPPED_NAMESPACES = (SHOP_NAMESPACE, DATABASE_NAMESPACE, OPERATOR, CONTROLLER_NAMESPACE)
_LABELS = {"app.kubernetes.io/name": SHIPPER}


def shipper_config(region: str) -> str:
    """Return Fluent Bit's configuration (docs.fluentbit.io/manual: inputs/tail and systemd, filters/grep, outputs/cloudwatch).

    The kubelet names a log <pod>_<namespace>_<container>-<id>.log. Where it stopped reading is kept on the node, so a new pod
    neither repeats nor misses a line. The kubelet itself writes into the node's journal, as AWS's own configuration reads it
    (aws-samples/amazon-cloudwatch-container-insights, fluent-bit.yaml).
    """
    paths = ",".join(f"/var/log/containers/*_{namespace}_*.log" for namespace in SHIPPED_NAMESPACES)
    restarts = f'CrashLoopBackOff.*pod="({"|".join(SHIPPED_NAMESPACES)})/'
    return f"""[SERVICE]
    Flush             5
    Log_Level         warn

[INPUT]
    Name              tail
    Tag               *
    Path              {paths}
    DB                /var/log/shopcat-{SHIPPER}.db
    multiline.parser  cri
    Mem_Buf_Limit     5MB
    Skip_Long_Lines   On
    Refresh_Interval  10

[INPUT]
    Name              systemd
    Tag               kubelet
    Path              /var/log/journal
    Systemd_Filter    _SYSTEMD_UNIT=kubelet.service
    DB                /var/log/shopcat-{SHIPPER}-journal.db
    Read_From_Tail    On

[FILTER]
    Name              grep
    Match             kubelet
    Regex             MESSAGE {restarts}

[FILTER]
    Name              modify
    Match             kubelet
    Rename            MESSAGE log

[OUTPUT]
    Name              cloudwatch_logs
    Match             *
    region            {region}
    log_group_name    {POD_LOGS_GROUP}
    log_key           log
    log_stream_prefix pods.
"""


UNSYNCED_PATTERN = (
    f'{{ $.msg = "Reconciler error" && $.controller = "externalsecret" && $.namespace = "{SHOP_NAMESPACE}*" }}'
)
"""Text that External Secrets logs each time it fails on an ExternalSecret of production's (docs.aws.amazon.com/AmazonCloudWatch/
latest/logs/FilterAndPatternSyntaxForMetricFilters.html); previews' namespaces begin otherwise."""


class LogShipper(pulumi.ComponentResource):
    """The log group, the pods that fill it, and what those may do; only where `shopcat:monitoring.logs` is set."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        logs: LogSettings,
        *,
        scope: AwsScope,
        depends_on: list[pulumi.Resource],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("shopcat:monitoring:LogShipper", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        after = pulumi.ResourceOptions(parent=self, depends_on=depends_on)
        group = aws.cloudwatch.LogGroup(SHIPPER, name=POD_LOGS_GROUP, retention_in_days=logs.retention_days, opts=child)
        for title, pattern, metric in (
            ("unsynced-secrets", UNSYNCED_PATTERN, UNSYNCED_METRIC),
            ("restarts", RESTART_PATTERN, RESTART_METRIC),
        ):
            log_metric(title, group.name, pattern, metric, child)
        identity = pod_role(
            SHIPPER,
            addon_policies.log_shipper_policy(scope),
            scope=scope,
            cluster=settings.cluster.name,
            namespace=CONTROLLER_NAMESPACE,
            parent=self,
            depends_on=depends_on,
        )
        meta = kubernetes.meta.v1.ObjectMetaArgs(name=SHIPPER, namespace=CONTROLLER_NAMESPACE)
        account = kubernetes.core.v1.ServiceAccount(
            SHIPPER, metadata=meta, automount_service_account_token=False, opts=after
        )
        network = kubernetes.networking.v1.NetworkPolicy(
            SHIPPER, metadata=meta, spec=addon_policy_spec(_LABELS, [HTTPS]), opts=after
        )
        config = kubernetes.core.v1.ConfigMap(
            SHIPPER, metadata=meta, data={"fluent-bit.conf": shipper_config(scope.region)}, opts=after
        )
        settled = pulumi.ResourceHook("log-shipper-identity", let_identity_settle)
        self._pods(
            logs.image,
            shipper_config(scope.region),
            pulumi.ResourceOptions(
                parent=self,
                depends_on=[group, identity.association, account, network, config],
                hooks=pulumi.ResourceHookBinding(before_create=[settled]),
            ),
        )
        self.register_outputs({})

    @staticmethod
    def _pods(image: str, config: str, opts: pulumi.ResourceOptions) -> None:
        core, meta = kubernetes.core.v1, kubernetes.meta.v1
        container = core.ContainerArgs(
            name=SHIPPER,
            image=image,
            resources=core.ResourceRequirementsArgs(**requests(capacity.LOG_SHIPPER)),
            security_context=core.SecurityContextArgs(
                allow_privilege_escalation=False, seccomp_profile=core.SeccompProfileArgs(type="RuntimeDefault")
            ),
            volume_mounts=[
                core.VolumeMountArgs(name="config", mount_path="/fluent-bit/etc/", read_only=True),
                core.VolumeMountArgs(name="logs", mount_path="/var/log"),
            ],
        )
        pod = core.PodSpecArgs(
            service_account_name=SHIPPER,
            automount_service_account_token=False,
            priority_class_name="system-node-critical",
            containers=[container],
            volumes=[
                core.VolumeArgs(name="config", config_map=core.ConfigMapVolumeSourceArgs(name=SHIPPER)),
                core.VolumeArgs(name="logs", host_path=core.HostPathVolumeSourceArgs(path="/var/log")),
            ],
        )
        # Pods don't read a changed configuration by themselves.
        template = core.PodTemplateSpecArgs(
            metadata=meta.ObjectMetaArgs(
                labels=_LABELS, annotations={"shopcat/config": hashlib.sha256(config.encode()).hexdigest()}
            ),
            spec=pod,
        )
        kubernetes.apps.v1.DaemonSet(
            SHIPPER,
            metadata=meta.ObjectMetaArgs(
                name=SHIPPER, namespace=CONTROLLER_NAMESPACE, annotations={"pulumi.com/skipAwait": "true"}
            ),
            spec=kubernetes.apps.v1.DaemonSetSpecArgs(
                selector=meta.LabelSelectorArgs(match_labels=_LABELS), template=template
            ),
            opts=opts,
        )
