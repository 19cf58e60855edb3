"""What the API server admits: previews inside their fence, and in production's namespaces no image but production's.

Rules are ValidatingAdmissionPolicies, which production declares and no preview can touch (infra/rbac.py):

* The preview identity, and the clean-up job's: writes in the namespace of its own pull request alone, and there each kind
  exactly as production's own functions make it (infra/preview_shape.py, infra/fence.py), under the names that they give it;
  finalizers, owners and what others have annotated stay as they are.
* Every Deployment and every pod in a preview's namespace, whoever makes it: exactly the preview's own, and the pod only behind
  the default-deny NetworkPolicy and the quota. What its pod is made as it stays.
* Every pod in production's namespaces, whoever makes it: images of production's repository by digest, or the pinned tools,
  wherever an image can stand.

Expressions are CEL (kubernetes.io/docs/reference/using-api/cel); a policy whose expression fails denies.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_kubernetes as kubernetes

from infra import closed, fence, preview_shape
from infra.closed import literal, same_quantities
from infra.limits import BY_DIGEST
from infra.preview_shape import escaped
from infra.record import APPLICATION, NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infra.record import Record


@dataclass(frozen=True)
class Facts:
    """What the rules are made of."""

    account: str
    region: str
    load_balancer_cidrs: Sequence[str]
    """Networks of the previews' load balancer."""
    secrets_role: str
    """ARN of the role in which the operator reads previews' secrets."""
    tools: Mapping[str, Sequence[str]]
    """Namespace of production → the tool images that its Jobs run, by digest."""
    database_image: str
    """An image of the repository that previews' databases come from."""
    most_grace_seconds: int
    """Longest time that a preview's pod may take to end: as long as production's."""
    repository: str = ""
    """Production's repository, with its registry."""
    preview_repository: str = ""
    """The previews' repository, with its registry."""


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
_AS_MADE = "is what infra/preview_objects.py of the main branch makes"


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
    binding = preview_shape.target_group_binding(f"{literal(group)} + request.namespace + '/'")
    subjects = literal(fence.role_subjects("pr-@")).replace(f'"{fence.USER}@"', "request.userInfo.username")
    custom = "external-secrets.io"
    kinds: list[tuple[str, dict[str, Any], str, str]] = [
        (
            "labels",
            _rule("", "v1", ["namespaces"]),
            _all(
                f"object.metadata.labels == {labels}",
                "(!has(object.spec.finalizers) || object.spec.finalizers.all(one, one == 'kubernetes'))",
            ),
            "a preview's namespace carries exactly the labels that restrict its pods, and no finalizer but Kubernetes' own",
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
            "stores",
            _rule(custom, "*", ["secretstores"]),
            f"object.metadata.name == {literal(fence.STORE)} && dyn(object.spec) == {stores}",
            "a preview's SecretStore reads in the previews' role and for its own namespace alone",
        ),
    ]
    return [
        *(
            Policy(f"shopcat-preview-{name}", [rule], _IDENTITY, [(expression, said)])
            for name, rule, expression, said in kinds
        ),
        *(
            Policy(
                f"shopcat-preview-service-{name}",
                [_rule("", "v1", ["services"])],
                {
                    **_IDENTITY,
                    "name": _either("object.metadata.name", name),
                },
                _made("Service", preview_shape.service(name), name),
            )
            for name in (APPLICATION, fence.DATABASE)
        ),
        Policy(
            "shopcat-preview-target-groups",
            [_rule("elbv2.k8s.aws", "*", ["targetgroupbindings"])],
            _IDENTITY,
            _made("TargetGroupBinding", binding, APPLICATION),
        ),
        Policy(
            "shopcat-preview-secrets",
            [_rule(custom, "*", ["externalsecrets"])],
            _IDENTITY,
            _made("ExternalSecret", preview_shape.external_secret(), APPLICATION),
        ),
    ]


def _either(path: str, name: str) -> str:
    """It is the database's, or everything else is judged as the application's."""
    return f"({path} == {literal(fence.DATABASE)}) == {literal(name == fence.DATABASE)}"


def _made(kind: str, spec: Mapping[str, Any], name: str) -> list[closed.Rule]:
    """An object has this name and is exactly this, but for what the template leaves open."""
    said = f"a preview's {kind} {_AS_MADE}: "
    named = (f"object.metadata.name == {literal(name)}", f"{said}it is called {name}")
    return [named, *((expression, said + text) for expression, text in closed.rules("object.spec", spec, "spec"))]


def metadata() -> Policy:
    """Limit what the preview identity writes beside an object's spec.

    A finalizer keeps an object, and with it a namespace, for ever; without the controller's own one a target outlives its pod,
    whose address may be a production pod's next. Annotations are how controllers remember what they have done.
    """
    allowed = literal(list(fence.ANNOTATIONS))

    def part(owner: str, name: str, empty: str) -> str:
        found = f"has({owner}.metadata.{name}) ? {owner}.metadata.{name} : {empty}"
        return f"oldObject == null ? {empty} : ({found})" if owner == "oldObject" else found

    def kept(one: str, other: str, free: str) -> str:
        same = f"(key in variables.{other} && variables.{other}[key] == variables.{one}[key])"
        return f"variables.{one}.all(key, {same} || {free})"

    short = f"variables.annotations[key].size() <= {fence.ANNOTATION_CHARACTERS}"
    return Policy(
        "shopcat-preview-metadata",
        [_rule("*", "*", ["*/*"])],
        {**_IDENTITY, **_QUESTION},
        [
            ("variables.finalizers == variables.finalizersBefore", "a preview neither adds nor removes a finalizer"),
            ("variables.owners == variables.ownersBefore", "a preview neither adds nor removes an owner reference"),
            (
                _all(
                    kept("annotations", "annotationsBefore", f"(key in {allowed} && {short})"),
                    kept("annotationsBefore", "annotations", f"key in {allowed}"),
                ),
                f"a preview writes no annotations but {', '.join(fence.ANNOTATIONS)}, and leaves the others as they are",
            ),
            (
                "variables.space || "
                + _all(
                    kept("labels", "labelsBefore", f"key == {literal(fence.NAME_LABEL)}"),
                    kept("labelsBefore", "labels", f"key == {literal(fence.NAME_LABEL)}"),
                ),
                f"a preview writes no label but {fence.NAME_LABEL}, and leaves the others as they are",
            ),
        ],
        {
            "space": _NAMES["space"],
            "finalizers": part("object", "finalizers", "[]"),
            "finalizersBefore": part("oldObject", "finalizers", "[]"),
            "owners": part("object", "ownerReferences", "[]"),
            "ownersBefore": part("oldObject", "ownerReferences", "[]"),
            "annotations": part("object", "annotations", "{}"),
            "annotationsBefore": part("oldObject", "annotations", "{}"),
            "labels": part("object", "labels", "{}"),
            "labelsBefore": part("oldObject", "labels", "{}"),
        },
    )


_IMAGES = (
    "(has(variables.pod.containers) ? variables.pod.containers.map(one, one.image) : []) + "
    "(has(variables.pod.initContainers) ? variables.pod.initContainers.map(one, one.image) : []) + "
    "(has(variables.pod.ephemeralContainers) ? variables.pod.ephemeralContainers.map(one, one.image) : []) + "
    "(has(variables.pod.volumes) ? variables.pod.volumes.filter(one, has(one.image))"
    ".map(one, has(one.image.reference) ? one.image.reference : '') : [])"
)
"""Every reference to an image that a pod can have, and `""` for one that names none."""


def preview_workloads(facts: Facts) -> list[Policy]:
    """Deployments and pods in previews' namespaces, whoever makes them.

    An update that leaves a spec as it is passes: an open preview stays manageable when production changes the templates.
    """
    shapes = {
        APPLICATION: preview_shape.application(facts.preview_repository, facts.most_grace_seconds),
        fence.DATABASE: preview_shape.database(facts.database_image),
    }
    changed = "request.operation == 'CREATE' || dyn(object.spec) != dyn(oldObject.spec)"
    label = literal(fence.NAME_LABEL)
    labelled = f"has(object.metadata.labels) && {label} in object.metadata.labels && object.metadata.labels[{label}]"
    found = []
    for name, spec in shapes.items():
        said = f"a preview's pod {_AS_MADE}: "
        pod = [
            *closed.rules("object.spec", preview_shape.pod(spec, fence.PRIORITY), "spec"),
            *closed.rules("object.metadata.labels", preview_shape.pod_labels(spec), "metadata.labels"),
        ]
        found += [
            Policy(
                f"shopcat-preview-deployment-{name}",
                [_rule("apps", "v1", ["deployments"])],
                {
                    **_IN_PREVIEW,
                    "name": _either("object.metadata.name", name),
                    "changed": changed,
                },
                _made("Deployment", spec, name),
            ),
            Policy(
                f"shopcat-preview-pod-{name}",
                [_rule("", "v1", ["pods"], "CREATE")],
                {**_IN_PREVIEW, "name": _either(labelled, name)},
                [(expression, said + text) for expression, text in pod],
            ),
        ]
    return [
        *found,
        Policy(
            "shopcat-preview-scale",
            [_rule("*", "*", ["*/scale"], "UPDATE")],
            _IN_PREVIEW,
            [
                (
                    "!has(object.spec.replicas) || object.spec.replicas <= 1",
                    "a preview's workloads have one replica at most",
                )
            ],
        ),
        Policy(
            "shopcat-preview-pods-as-made",
            [_rule("", "v1", ["pods", "pods/ephemeralcontainers", "pods/resize"], "UPDATE")],
            _IN_PREVIEW,
            [("dyn(object.spec) == dyn(oldObject.spec)", "a preview's pod stays as it was made")],
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
    repository = f"^{escaped(facts.repository)}{BY_DIGEST}$"
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


def policies(facts: Facts) -> list[Policy]:
    """All of them."""
    return [
        own_namespace(),
        removal(),
        *fenced_objects(facts),
        metadata(),
        *preview_workloads(facts),
        *production_images(facts),
    ]


def smoke_images(configured: str, records: Sequence[Record]) -> list[str]:
    """The smoke test's image: today's, and of each release that may come back its own."""
    return sorted({configured, *(record.template.smoke_image for record in records)})


def declare(
    facts: Facts,
    repository: pulumi.Input[str],
    preview_repository: pulumi.Input[str],
    *,
    protect: bool,
    opts: pulumi.ResourceOptions,
) -> list[pulumi.Resource]:
    """Policies and bindings, with both repositories as their registry names them.

    They are protected, and not only for what they keep out: an API server that has lost the last policy about some kind
    beside the pod no longer watches that kind, and takes it up again only when it is started anew (Kubernetes 1.35,
    apiserver/pkg/admission/plugin/policy/generic/policy_source.go). Until then no preview gets a pod.
    """
    opts = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(protect=protect))
    repositories = pulumi.Output.all(repository, preview_repository)

    def spec(name: str, *, binding: bool) -> pulumi.Output[dict[str, Any]]:
        def find(urls: Sequence[str]) -> dict[str, Any]:
            known = replace(facts, repository=urls[0], preview_repository=urls[1])
            one = next(each for each in policies(known) if each.name == name)
            return one.binding() if binding else one.spec()

        return repositories.apply(find)

    names = [each.name for each in policies(facts)]
    return [one for name in names for one in bound(name, spec(name, binding=False), spec(name, binding=True), opts)]


def bound(
    name: str,
    spec: pulumi.Input[dict[str, Any]],
    binding: pulumi.Input[dict[str, Any]],
    opts: pulumi.ResourceOptions,
) -> list[pulumi.Resource]:
    """Declare a policy, and its binding once it is there."""
    kinds = kubernetes.admissionregistration.v1
    policy = kinds.ValidatingAdmissionPolicy(name, metadata={"name": name}, spec=spec, opts=opts)
    after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[policy]))
    return [
        policy,
        kinds.ValidatingAdmissionPolicyBinding(name, metadata={"name": name}, spec=binding, opts=after),
    ]
