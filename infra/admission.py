"""What the API server admits: previews inside their fence, and in production's namespaces no image but production's.

Rules are ValidatingAdmissionPolicies, which production declares and no preview can touch (infra/rbac.py):

* The preview identity, and the clean-up job's: writes in the namespace of its own pull request alone, and there each kind
  exactly as production's own functions make it (infra/fence.py): nothing of the fence can be widened.
* Every pod in a preview's namespace, whoever makes it: only behind the default-deny NetworkPolicy and the quota, at the
  previews' priority, as the ServiceAccount `default`, off the host's network, by digest, never production's image.
* Every pod in production's namespaces, whoever makes it: images of production's repository by digest, or the pinned tools.

Expressions are CEL (kubernetes.io/docs/reference/using-api/cel); a policy whose expression fails denies.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_kubernetes as kubernetes

from infra import fence
from infra.record import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infra.record import Record

_DIGEST = "^[^@]+@sha256:[0-9a-f]{64}$"
_HOST = ("hostNetwork", "hostPID", "hostIPC")
_NODE = "the scheduler decides where a preview's pods run"


@dataclass(frozen=True)
class Facts:
    """What the rules are made of."""

    account: str
    region: str
    load_balancer_cidrs: Sequence[str]
    secrets_role: str
    """ARN of the role in which the operator reads previews' secrets."""
    tools: Mapping[str, Sequence[str]]
    """Namespace of production → the tool images that its Jobs run, by digest."""
    repository: str = ""
    """Production's repository, with its registry."""


@dataclass(frozen=True)
class Policy:
    """A ValidatingAdmissionPolicy and its binding, before they are Kubernetes' own JSON."""

    name: str
    rules: Sequence[Mapping[str, Any]]
    conditions: Mapping[str, str]
    """What it applies to, as named expressions that must all hold."""
    validations: Sequence[tuple[str, str]]
    """An expression that must hold, and what is said otherwise."""
    variables: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, str, str] | None = None
    """API version, kind and name of an object of the same namespace (`params`) that must be there.

    It is looked for before the conditions are: such a policy applies to namespaces that carry the previews' label, which
    those that the preview identity makes always do.
    """

    def spec(self) -> dict[str, Any]:
        """The policy's spec."""
        found: dict[str, Any] = {}
        if self.beside:
            found["paramKind"] = {"apiVersion": self.beside[0], "kind": self.beside[1]}
        if self.variables:
            found["variables"] = [{"name": name, "expression": text} for name, text in self.variables.items()]
        selected = {"namespaceSelector": {"matchLabels": {fence.LABEL: "true"}}} if self.beside else {}
        return {
            **found,
            "failurePolicy": "Fail",
            "matchConstraints": {**selected, "resourceRules": [dict(rule) for rule in self.rules]},
            "matchConditions": [{"name": name, "expression": text} for name, text in self.conditions.items()],
            "validations": [{"expression": text, "message": said} for text, said in self.validations],
        }

    def binding(self) -> dict[str, Any]:
        """The spec of its binding: it denies."""
        found: dict[str, Any] = {"policyName": self.name, "validationActions": ["Deny"]}
        if self.beside:
            found["paramRef"] = {"name": self.beside[2], "parameterNotFoundAction": "Deny"}
        return found


def literal(value: Any) -> str:
    """A plain value as CEL writes it.

    As JSON does, but that the API server takes only maps and lists whose values are of one type: each is made `dyn`.
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: dyn({literal(one)})" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(f"dyn({literal(one)})" for one in value) + "]"
    return json.dumps(value)


def same_quantities(path: str, wanted: Mapping[str, str]) -> str:
    """Whether a map of quantities is exactly this one: `1Gi` is `1024Mi`, and no key more or less."""
    each = [
        f"{literal(name)} in {path} && quantity({path}[{literal(name)}]).compareTo(quantity({literal(value)})) == 0"
        for name, value in wanted.items()
    ]
    return " && ".join([f"{path}.size() == {len(wanted)}", *each])


def _exact_quota(owner: str) -> list[str]:
    """The quota that production sets and no more; `dyn`, since the API's schema can't say what a map of quantities is."""
    spec = f"dyn({owner}.spec)"
    hard = f"{spec}.hard"
    return [
        f"!has({spec}.scopes) && !has({spec}.scopeSelector) && has({hard})",
        same_quantities(hard, fence.quota()),
    ]


def _all(*expressions: str) -> str:
    """Every one of them."""
    return " && ".join(expressions)


def _rule(group: str, versions: str, resources: list[str], *operations: str) -> dict[str, Any]:
    return {
        "apiGroups": [group],
        "apiVersions": [versions],
        "operations": list(operations or ("CREATE", "UPDATE")),
        "resources": resources,
        "scope": "*",
    }


def _member(group: str) -> str:
    return f"has(request.userInfo.groups) && {literal(group)} in request.userInfo.groups"


_IDENTITY = {"preview-identity": _member(fence.GROUP)}
_QUESTION = {"not-a-question": "!(request.resource.group in ['authentication.k8s.io', 'authorization.k8s.io'])"}
"""Asking who one is and what one may do writes nothing."""
_NAMES = {
    "name": "has(request.name) ? request.name : ''",
    "within": "has(request.namespace) ? request.namespace : ''",
    "space": "request.resource.group == '' && request.resource.resource == 'namespaces'",
}
_IN_PREVIEW = {"in-a-preview": f"request.namespace.matches({literal(fence.NAMESPACE)})"}
_NEW_PODS = [_rule("", "v1", ["pods"], "CREATE"), _rule("", "v1", ["pods/ephemeralcontainers"], "UPDATE")]


def own_namespace() -> Policy:
    """Whatever the preview identity writes or deletes is in the namespace of its own pull request."""
    return Policy(
        "shopcat-preview-namespace",
        [_rule("*", "*", ["*/*"], "CREATE", "UPDATE", "DELETE", "CONNECT")],
        {**_IDENTITY, **_QUESTION},
        [
            (
                "variables.own.matches(" + literal(fence.NAMESPACE) + ")",
                "a preview's user is shopcat-preview:<n>, by the number of its pull request",
            ),
            (
                "variables.where == variables.own",
                "a pull request may write in the namespace pr-<n> of its own number alone",
            ),
        ],
        {
            **_NAMES,
            "own": f"request.userInfo.username.startsWith({literal(fence.USER)}) ? "
            f"'pr-' + request.userInfo.username.substring({len(fence.USER)}) : ''",
            "where": "variables.space ? variables.name : variables.within",
        },
    )


def removal() -> Policy:
    """The clean-up job deletes previews' namespaces and no other."""
    return Policy(
        "shopcat-preview-removal",
        [_rule("*", "*", ["*/*"], "CREATE", "UPDATE", "DELETE", "CONNECT")],
        {"clean-up-identity": _member(fence.CLEANUP_GROUP), **_QUESTION},
        [
            (
                _all(
                    "request.operation == 'DELETE' && variables.space",
                    f"variables.name.matches({literal(fence.NAMESPACE)})",
                ),
                "the clean-up job may delete namespaces pr-<n> and nothing else",
            )
        ],
        _NAMES,
    )


def fenced_objects(facts: Facts) -> list[Policy]:
    """Each kind that the preview identity may write, exactly as production's own functions make it."""
    allowed = literal(fence.network_policies(facts.load_balancer_cidrs))
    limits = fence.container_limits()
    item = "dyn(object.spec).limits[0]"
    labels = literal(fence.namespace_labels("@")).replace('"@"', "object.metadata.name")
    stores = literal(fence.store("@", facts.region, facts.secrets_role)).replace('"@"', "request.namespace")
    group = f"arn:aws:elasticloadbalancing:{facts.region}:{facts.account}:targetgroup/shopcat-"
    subjects = literal(fence.role_subjects("pr-@")).replace(f'"{fence.USER}@"', "request.userInfo.username")
    path = f"{literal(f'{fence.SECRET_PATH}/')} + request.namespace + '/'"
    custom = "external-secrets.io"
    kinds: list[tuple[str, dict[str, Any], str, str]] = [
        (
            "labels",
            _rule("", "v1", ["namespaces"]),
            f"object.metadata.labels == {labels}",
            "a preview's namespace carries exactly the labels that restrict its pods",
        ),
        (
            "quota",
            _rule("", "v1", ["resourcequotas"]),
            _all(
                f"object.metadata.name == {literal(fence.LIMITS)}",
                *_exact_quota("object"),
            ),
            "a preview's quota is production's to set (infra/fence.py on the main branch)",
        ),
        (
            "limits",
            _rule("", "v1", ["limitranges"]),
            _all(
                f"object.metadata.name == {literal(fence.LIMITS)}",
                f"object.spec.limits.size() == 1 && {item}.type == 'Container'",
                *(f"!has({item}.{key})" for key in ("max", "min", "maxLimitRequestRatio")),
                *(f"has({item}.{key}) && {same_quantities(f'{item}.{key}', limits[key])}" for key in limits),
            ),
            "a preview's limits are production's to set (infra/fence.py on the main branch)",
        ),
        (
            "network",
            _rule("networking.k8s.io", "v1", ["networkpolicies"]),
            f"object.metadata.name in {allowed} && dyn(object.spec) == {allowed}[object.metadata.name]",
            "a preview's network policies are production's to set (infra/fence.py on the main branch)",
        ),
        (
            "binding",
            _rule("rbac.authorization.k8s.io", "v1", ["rolebindings"]),
            _all(
                f"object.metadata.name == {literal(fence.ROLE)}",
                f"dyn(object.roleRef) == {literal(fence.role_reference())}",
                f"dyn(object.subjects) == {subjects}",
            ),
            f"a preview binds the ClusterRole {fence.ROLE}, and to its own user alone",
        ),
        (
            "services",
            _rule("", "v1", ["services"]),
            "(!has(object.spec.type) || object.spec.type == 'ClusterIP') && !has(object.spec.externalIPs)",
            "a preview's Services are of type ClusterIP, without external addresses",
        ),
        (
            "target-groups",
            _rule("elbv2.k8s.aws", "*", ["targetgroupbindings"]),
            _all(
                "has(object.spec.targetGroupARN)",
                f"object.spec.targetGroupARN.startsWith({literal(group)} + request.namespace + '/')",
                "!has(object.spec.targetGroupName) && !has(object.spec.networking)",
                # `dyn`: not every version of the definition has both, and the controller may take no role anyway.
                "!has(dyn(object.spec).multiClusterTargetGroup) && !has(dyn(object.spec).iamRoleArnToAssume)",
            ),
            "a preview binds the target group shopcat-pr-<n> of its own number alone",
        ),
        (
            "stores",
            _rule(custom, "*", ["secretstores"]),
            f"object.spec == {stores}",
            "a preview's SecretStore reads in the previews' role and for its own namespace alone",
        ),
        (
            "secrets",
            _rule(custom, "*", ["externalsecrets"]),
            _all(
                "!has(object.spec.dataFrom) && has(object.spec.data)",
                f"object.spec.data.all(one, !has(one.sourceRef) && one.remoteRef.key.startsWith({path}))",
                f"object.spec.secretStoreRef.name == {literal(fence.STORE)}",
                "(!has(object.spec.secretStoreRef.kind) || object.spec.secretStoreRef.kind == 'SecretStore')",
                "(!has(object.spec.target) || "
                "(!has(object.spec.target.template) && !has(object.spec.target.manifest)))",
            ),
            f"a preview's ExternalSecret names secrets below {fence.SECRET_PATH}/pr-<n>/ of its own number alone",
        ),
    ]
    return [
        Policy(f"shopcat-preview-{name}", [rule], _IDENTITY, [(expression, said)])
        for name, rule, expression, said in kinds
    ]


_IMAGES = (
    "(has(variables.pod.containers) ? variables.pod.containers.map(one, one.image) : []) + "
    "(has(variables.pod.initContainers) ? variables.pod.initContainers.map(one, one.image) : []) + "
    "(has(variables.pod.ephemeralContainers) ? variables.pod.ephemeralContainers.map(one, one.image) : [])"
)


def _pod_rules(facts: Facts) -> list[tuple[str, str]]:
    foreign = " && ".join(f"!one.startsWith({literal(facts.repository + mark)})" for mark in ("@", ":"))
    host = " && ".join(f"(!has(variables.pod.{key}) || !variables.pod.{key})" for key in _HOST)
    return [
        (f"variables.images.all(one, one.matches({literal(_DIGEST)}))", "a preview's images are given by digest"),
        (f"variables.images.all(one, {foreign})", f"a preview never runs an image of {facts.repository}"),
        (
            f"has(variables.pod.priorityClassName) && variables.pod.priorityClassName == {literal(fence.PRIORITY_CLASS)}",
            f"a preview's pods have the priority class {fence.PRIORITY_CLASS}",
        ),
        (
            "!has(variables.pod.serviceAccountName) || variables.pod.serviceAccountName in ['', 'default']",
            "a preview's pods run as the ServiceAccount default, which may do nothing",
        ),
        (host, "a preview's pods stay off the host's network, processes and memory"),
        ("!has(variables.pod.nodeName)", _NODE),
    ]


def preview_pods(facts: Facts) -> list[Policy]:
    """Pods in previews' namespaces, whoever makes them; and already the Deployment, so that its maker hears why."""
    return [
        Policy(
            "shopcat-preview-pods",
            _NEW_PODS,
            _IN_PREVIEW,
            # An ephemeral container joins a pod that has its node by now.
            [*_pod_rules(facts)[:-1], ("request.operation != 'CREATE' || !has(object.spec.nodeName)", _NODE)],
            {"pod": "object.spec", "images": _IMAGES},
        ),
        Policy(
            "shopcat-preview-deployments",
            [_rule("apps", "v1", ["deployments"])],
            _IN_PREVIEW,
            _pod_rules(facts),
            {"pod": "object.spec.template.spec", "images": _IMAGES},
        ),
        Policy(
            "shopcat-preview-behind-network-policy",
            [_rule("", "v1", ["pods"], "CREATE")],
            _IN_PREVIEW,
            [
                (
                    f"dyn(params.spec) == {literal(fence.default_deny())}",
                    "the namespace's default-deny NetworkPolicy is wider",
                )
            ],
            beside=("networking.k8s.io/v1", "NetworkPolicy", fence.DEFAULT_DENY),
        ),
        Policy(
            "shopcat-preview-within-quota",
            [_rule("", "v1", ["pods"], "CREATE")],
            _IN_PREVIEW,
            [
                (
                    _all(*_exact_quota("params")),
                    "the namespace's ResourceQuota is not the one that production sets",
                )
            ],
            beside=("v1", "ResourceQuota", fence.LIMITS),
        ),
    ]


def production_images(facts: Facts) -> list[Policy]:
    """Pods in production's namespaces, whoever makes them: production's repository by digest, or the pinned tools.

    An update that leaves an image as it is passes: pods of a release stay manageable when the tools move on.
    """
    repository = f"^{_escaped(facts.repository)}@sha256:[0-9a-f]{{64}}$"
    return [
        Policy(
            f"{namespace}-images",
            [_rule("", "v1", ["pods"]), _rule("", "v1", ["pods/ephemeralcontainers"], "UPDATE")],
            {"in-production": f"request.namespace == {literal(namespace)}"},
            [
                (
                    "variables.images.all(one, "
                    + " || ".join(
                        ["one in variables.before", f"one in {literal(sorted(tools))}"]
                        + ([f"one.matches({literal(repository)})"] if namespace == NAMESPACE else [])
                    )
                    + ")",
                    f"{namespace} runs images of {facts.repository} by digest and the pinned tools, nothing else"
                    if namespace == NAMESPACE
                    else f"{namespace} runs its pinned tool by digest, nothing else",
                )
            ],
            {
                "pod": "object.spec",
                "images": _IMAGES,
                "before": "oldObject == null ? [] : " + _IMAGES.replace("variables.pod", "oldObject.spec"),
            },
        )
        for namespace, tools in sorted(facts.tools.items())
    ]


def _escaped(text: str) -> str:
    """The text as a regular expression (RE2) that matches it alone."""
    return text.replace(".", "[.]")


def policies(facts: Facts) -> list[Policy]:
    """All of them."""
    return [
        own_namespace(),
        removal(),
        *fenced_objects(facts),
        *preview_pods(facts),
        *production_images(facts),
    ]


def smoke_images(configured: str, records: Sequence[Record]) -> list[str]:
    """The smoke test's image: today's, and of each release that may come back its own."""
    return sorted({configured, *(record.template.smoke_image for record in records)})


def declare(
    facts: Facts, repository: pulumi.Output[str], *, protect: bool, opts: pulumi.ResourceOptions
) -> list[pulumi.Resource]:
    """Policies and bindings, with production's repository as its registry names it.

    They are protected, and not only for what they keep out: an API server that has lost the last policy about some kind
    beside the pod no longer watches that kind, and takes it up again only when it is started anew (Kubernetes 1.35,
    apiserver/pkg/admission/plugin/policy/generic/policy_source.go). Until then no preview gets a pod.
    """
    opts = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(protect=protect))

    def spec(name: str, *, binding: bool) -> pulumi.Output[dict[str, Any]]:
        def find(url: str) -> dict[str, Any]:
            one = next(each for each in policies(replace(facts, repository=url)) if each.name == name)
            return one.binding() if binding else one.spec()

        return repository.apply(find)

    made: list[pulumi.Resource] = []
    for name in (each.name for each in policies(facts)):
        policy = kubernetes.admissionregistration.v1.ValidatingAdmissionPolicy(
            name, metadata={"name": name}, spec=spec(name, binding=False), opts=opts
        )
        binding = kubernetes.admissionregistration.v1.ValidatingAdmissionPolicyBinding(
            name,
            metadata={"name": name},
            spec=spec(name, binding=True),
            opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[policy])),
        )
        made += [policy, binding]
    return made
