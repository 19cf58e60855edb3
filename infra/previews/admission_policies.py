"""Rules for the API server: it admits isolated previews, and in production's namespaces no image but production's.

Rules are ValidatingAdmissionPolicies, which production declares and no preview can touch (infra/previews/rbac.py):

* The preview identity, and the clean-up job's: writes in the namespace of its own pull request alone, and there each kind
  exactly as production's own functions make it (infra/previews/admitted_shapes.py, infra/previews/isolation.py), under the
  names that they give it; finalizers, owners and what others have annotated stay as they are.
* Every Deployment and every pod in a preview's namespace, whoever makes it: exactly the preview's own, and the pod only behind
  the default-deny NetworkPolicy and the quota. What its pod is made as it stays.
* Every pod in production's namespaces, whoever makes it: images of production's repository by digest, or the pinned tools,
  wherever an image can stand.

Expressions are CEL (kubernetes.io/docs/reference/using-api/cel); a policy whose expression fails denies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pulumi

from infra.foundation import cel
from infra.foundation.admission import AdmissionPolicy, all_of, bound_policy, resource_rule
from infra.foundation.cel import literal, same_quantities
from infra.names import (
    APPLICATION,
    CLEANUP_GROUP,
    PREVIEW_CLUSTER_ROLE,
    PREVIEW_GROUP,
    PREVIEW_NAMESPACE_PATTERN,
    PREVIEW_USER_PREFIX,
)
from infra.previews import admitted_shapes, isolation
from infra.previews.admission_facts import AdmissionFacts
from infra.previews.image_policies import production_images

if TYPE_CHECKING:
    from collections.abc import Mapping


def _exact_quota(owner: str) -> list[str]:
    """Require the quota that production sets and no more; `dyn`, since the API's schema can't say what a map of quantities is."""
    spec = f"dyn({owner}.spec)"
    hard = f"{spec}.hard"
    return [
        f"!has({spec}.scopes) && !has({spec}.scopeSelector) && has({hard})",
        same_quantities(hard, isolation.quota()),
    ]


def _member(group: str) -> str:
    return f"has(request.userInfo.groups) && {literal(group)} in request.userInfo.groups"


_IDENTITY = {"preview-identity": _member(PREVIEW_GROUP)}
_QUESTION = {"not-a-question": "!(request.resource.group in ['authentication.k8s.io', 'authorization.k8s.io'])"}
"""Condition that leaves out questions about identity and rights, which write nothing."""
_NAMES = {
    "name": "has(request.name) ? request.name : ''",
    "within": "has(request.namespace) ? request.namespace : ''",
    "space": "request.resource.group == '' && request.resource.resource == 'namespaces'",
}
_IN_PREVIEW = {"in-a-preview": f"request.namespace.matches({literal(PREVIEW_NAMESPACE_PATTERN)})"}
# A message is part of a declared policy, so a changed one is an update of every shop: the files that messages name are known
# today as previews/manifests.py and previews/isolation.py, and the names follow when a policy changes anyway.
_AS_MADE = "is what infra/previews/manifests.py of the main branch makes"


def own_namespace() -> AdmissionPolicy:
    """Limit what the preview identity writes or deletes to the namespace of its own pull request."""
    return AdmissionPolicy(
        "shopcat-preview-namespace",
        [resource_rule("*", "*", ["*/*"], "CREATE", "UPDATE", "DELETE", "CONNECT")],
        {**_IDENTITY, **_QUESTION},
        [
            (
                "variables.own.matches(" + literal(PREVIEW_NAMESPACE_PATTERN) + ")",
                "a preview's user is shopcat-preview:<n>, by the number of its pull request",
            ),
            (
                "variables.where == variables.own",
                "a pull request may write in the namespace pr-<n> of its own number alone",
            ),
        ],
        {
            **_NAMES,
            "own": f"request.userInfo.username.startsWith({literal(PREVIEW_USER_PREFIX)}) ? "
            f"'pr-' + request.userInfo.username.substring({len(PREVIEW_USER_PREFIX)}) : ''",
            "where": "variables.space ? variables.name : variables.within",
        },
    )


def removal() -> AdmissionPolicy:
    """Limit the clean-up job to deleting previews' namespaces."""
    return AdmissionPolicy(
        "shopcat-preview-removal",
        [resource_rule("*", "*", ["*/*"], "CREATE", "UPDATE", "DELETE", "CONNECT")],
        {"clean-up-identity": _member(CLEANUP_GROUP), **_QUESTION},
        [
            (
                all_of(
                    "request.operation == 'DELETE' && variables.space",
                    f"variables.name.matches({literal(PREVIEW_NAMESPACE_PATTERN)})",
                ),
                "the clean-up job may delete namespaces pr-<n> and nothing else",
            )
        ],
        _NAMES,
    )


def preview_objects(facts: AdmissionFacts) -> list[AdmissionPolicy]:
    """Limit each kind that the preview identity may write to exactly what production's own functions make."""
    allowed = literal(isolation.preview_network_policies(facts.load_balancer_cidrs))
    limits = isolation.container_limits()
    item = "dyn(object.spec).limits[0]"
    labels = literal(isolation.namespace_labels("@")).replace('"@"', "object.metadata.name")
    stores = literal(isolation.store("@", facts.region, facts.secrets_role)).replace('"@"', "request.namespace")
    group = f"arn:aws:elasticloadbalancing:{facts.region}:{facts.account}:targetgroup/shopcat-"
    binding = admitted_shapes.target_group_binding_shape(f"{literal(group)} + request.namespace + '/'")
    subjects = literal(isolation.role_subjects("pr-@")).replace(
        f'"{PREVIEW_USER_PREFIX}@"', "request.userInfo.username"
    )
    custom = "external-secrets.io"
    kinds: list[tuple[str, dict[str, Any], str, str]] = [
        (
            "labels",
            resource_rule("", "v1", ["namespaces"]),
            all_of(
                f"object.metadata.labels == {labels}",
                "(!has(object.spec.finalizers) || object.spec.finalizers.all(one, one == 'kubernetes'))",
            ),
            "a preview's namespace carries exactly the labels that restrict its pods, and no finalizer but Kubernetes' own",
        ),
        (
            "quota",
            resource_rule("", "v1", ["resourcequotas"]),
            all_of(
                f"object.metadata.name == {literal(isolation.QUOTA_NAME)}",
                *_exact_quota("object"),
            ),
            "a preview's quota is production's to set (infra/previews/isolation.py on the main branch)",
        ),
        (
            "limits",
            resource_rule("", "v1", ["limitranges"]),
            all_of(
                f"object.metadata.name == {literal(isolation.QUOTA_NAME)}",
                f"object.spec.limits.size() == 1 && {item}.type == 'Container'",
                *(f"!has({item}.{key})" for key in ("max", "min", "maxLimitRequestRatio")),
                *(f"has({item}.{key}) && {same_quantities(f'{item}.{key}', limits[key])}" for key in limits),
            ),
            "a preview's limits are production's to set (infra/previews/isolation.py on the main branch)",
        ),
        (
            "network",
            resource_rule("networking.k8s.io", "v1", ["networkpolicies"]),
            f"object.metadata.name in {allowed} && dyn(object.spec) == {allowed}[object.metadata.name]",
            "a preview's network policies are production's to set (infra/previews/isolation.py on the main branch)",
        ),
        (
            "binding",
            resource_rule("rbac.authorization.k8s.io", "v1", ["rolebindings"]),
            all_of(
                f"object.metadata.name == {literal(PREVIEW_CLUSTER_ROLE)}",
                f"dyn(object.roleRef) == {literal(isolation.role_reference())}",
                f"dyn(object.subjects) == {subjects}",
            ),
            f"a preview binds the ClusterRole {PREVIEW_CLUSTER_ROLE}, and to its own user alone",
        ),
        (
            "stores",
            resource_rule(custom, "*", ["secretstores"]),
            f"object.metadata.name == {literal(isolation.PREVIEW_STORE)} && dyn(object.spec) == {stores}",
            "a preview's SecretStore reads in the previews' role and for its own namespace alone",
        ),
    ]
    return [
        *(
            AdmissionPolicy(f"shopcat-preview-{name}", [rule], _IDENTITY, [(expression, message)])
            for name, rule, expression, message in kinds
        ),
        *(
            AdmissionPolicy(
                f"shopcat-preview-service-{name}",
                [resource_rule("", "v1", ["services"])],
                {
                    **_IDENTITY,
                    "name": _either("object.metadata.name", name),
                },
                _made("Service", admitted_shapes.service_shape(name), name),
            )
            for name in (APPLICATION, isolation.DATABASE_WORKLOAD)
        ),
        AdmissionPolicy(
            "shopcat-preview-target-groups",
            [resource_rule("elbv2.k8s.aws", "*", ["targetgroupbindings"])],
            _IDENTITY,
            _made("TargetGroupBinding", binding, APPLICATION),
        ),
        AdmissionPolicy(
            "shopcat-preview-secrets",
            [resource_rule(custom, "*", ["externalsecrets"])],
            _IDENTITY,
            _made("ExternalSecret", admitted_shapes.external_secret_shape(), APPLICATION),
        ),
    ]


def _either(path: str, name: str) -> str:
    """Select the database's object by its name; everything else is judged as the application's."""
    return f"({path} == {literal(isolation.DATABASE_WORKLOAD)}) == {literal(name == isolation.DATABASE_WORKLOAD)}"


def _made(kind: str, spec: Mapping[str, Any], name: str) -> list[cel.CelRule]:
    """Require that an object has this name and is exactly the template, but for what that leaves open."""
    message = f"a preview's {kind} {_AS_MADE}: "
    named = (f"object.metadata.name == {literal(name)}", f"{message}it is called {name}")
    return [named, *((expression, message + text) for expression, text in cel.cel_rules("object.spec", spec, "spec"))]


def metadata() -> AdmissionPolicy:
    """Limit what the preview identity writes beside an object's spec.

    A finalizer keeps an object, and with it a namespace, for ever; without the controller's own one a target outlives its pod,
    whose address may be a production pod's next. Annotations are how controllers remember what they have done.
    """
    allowed = literal(list(isolation.PREVIEW_ANNOTATIONS))

    def part(owner: str, name: str, empty: str) -> str:
        value = f"has({owner}.metadata.{name}) ? {owner}.metadata.{name} : {empty}"
        return f"oldObject == null ? {empty} : ({value})" if owner == "oldObject" else value

    def kept(left: str, right: str, free: str) -> str:
        same = f"(key in variables.{right} && variables.{right}[key] == variables.{left}[key])"
        return f"variables.{left}.all(key, {same} || {free})"

    short = f"variables.annotations[key].size() <= {isolation.ANNOTATION_CHARACTERS}"
    return AdmissionPolicy(
        "shopcat-preview-metadata",
        [resource_rule("*", "*", ["*/*"])],
        {**_IDENTITY, **_QUESTION},
        [
            ("variables.finalizers == variables.finalizersBefore", "a preview neither adds nor removes a finalizer"),
            ("variables.owners == variables.ownersBefore", "a preview neither adds nor removes an owner reference"),
            (
                all_of(
                    kept("annotations", "annotationsBefore", f"(key in {allowed} && {short})"),
                    kept("annotationsBefore", "annotations", f"key in {allowed}"),
                ),
                (
                    f"a preview writes no annotations but {', '.join(isolation.PREVIEW_ANNOTATIONS)}, "
                    "and leaves the others as they are"
                ),
            ),
            (
                "variables.space || "
                + all_of(
                    kept("labels", "labelsBefore", f"key == {literal(isolation.NAME_LABEL)}"),
                    kept("labelsBefore", "labels", f"key == {literal(isolation.NAME_LABEL)}"),
                ),
                f"a preview writes no label but {isolation.NAME_LABEL}, and leaves the others as they are",
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


def preview_workloads(facts: AdmissionFacts) -> list[AdmissionPolicy]:
    """Limit Deployments and pods in previews' namespaces, whoever makes them.

    An update that leaves a spec as it is passes: an open preview stays manageable when production changes the templates.
    """
    shapes = {
        APPLICATION: admitted_shapes.application_shape(facts.preview_repository, facts.most_grace_seconds),
        isolation.DATABASE_WORKLOAD: admitted_shapes.database_shape(facts.database_image),
    }
    changed = "request.operation == 'CREATE' || dyn(object.spec) != dyn(oldObject.spec)"
    label = literal(isolation.NAME_LABEL)
    labelled = f"has(object.metadata.labels) && {label} in object.metadata.labels && object.metadata.labels[{label}]"
    policies = []
    for name, spec in shapes.items():
        message = f"a preview's pod {_AS_MADE}: "
        pod = [
            *cel.cel_rules("object.spec", admitted_shapes.pod_shape(spec, isolation.PREVIEW_PRIORITY), "spec"),
            *cel.cel_rules("object.metadata.labels", admitted_shapes.pod_labels(spec), "metadata.labels"),
        ]
        policies += [
            AdmissionPolicy(
                f"shopcat-preview-deployment-{name}",
                [resource_rule("apps", "v1", ["deployments"])],
                {
                    **_IN_PREVIEW,
                    "name": _either("object.metadata.name", name),
                    "changed": changed,
                },
                _made("Deployment", spec, name),
            ),
            AdmissionPolicy(
                f"shopcat-preview-pod-{name}",
                [resource_rule("", "v1", ["pods"], "CREATE")],
                {**_IN_PREVIEW, "name": _either(labelled, name)},
                [(expression, message + text) for expression, text in pod],
            ),
        ]
    return [
        *policies,
        AdmissionPolicy(
            "shopcat-preview-scale",
            [resource_rule("*", "*", ["*/scale"], "UPDATE")],
            _IN_PREVIEW,
            [
                (
                    "!has(object.spec.replicas) || object.spec.replicas <= 1",
                    "a preview's workloads have one replica at most",
                )
            ],
        ),
        AdmissionPolicy(
            "shopcat-preview-pods-as-made",
            [resource_rule("", "v1", ["pods", "pods/ephemeralcontainers", "pods/resize"], "UPDATE")],
            _IN_PREVIEW,
            [("dyn(object.spec) == dyn(oldObject.spec)", "a preview's pod stays as it was made")],
        ),
        AdmissionPolicy(
            "shopcat-preview-behind-network-policy",
            [resource_rule("", "v1", ["pods"], "CREATE")],
            _IN_PREVIEW,
            [
                (
                    f"dyn(params.spec) == {literal(isolation.default_deny())}",
                    "the namespace's default-deny NetworkPolicy is wider",
                )
            ],
            beside=("networking.k8s.io/v1", "NetworkPolicy", isolation.DEFAULT_DENY),
        ),
        AdmissionPolicy(
            "shopcat-preview-within-quota",
            [resource_rule("", "v1", ["pods"], "CREATE")],
            _IN_PREVIEW,
            [
                (
                    all_of(*_exact_quota("params")),
                    "the namespace's ResourceQuota is not the one that production sets",
                )
            ],
            beside=("v1", "ResourceQuota", isolation.QUOTA_NAME),
        ),
    ]


def admission_policies(facts: AdmissionFacts) -> list[AdmissionPolicy]:
    """Return all policies."""
    return [
        own_namespace(),
        removal(),
        *preview_objects(facts),
        metadata(),
        *preview_workloads(facts),
        *production_images(facts),
    ]


def declare_admission_policies(
    facts: AdmissionFacts,
    repository: pulumi.Input[str],
    preview_repository: pulumi.Input[str],
    *,
    protect: bool,
    opts: pulumi.ResourceOptions,
) -> list[pulumi.Resource]:
    """Declare policies and bindings, with both repositories as their registry names them.

    They are protected, and not only for what they keep out: an API server that has lost the last policy about some kind
    beside the pod no longer watches that kind, and takes it up again only when it is started anew (Kubernetes 1.35,
    apiserver/pkg/admission/plugin/policy/generic/policy_source.go). Until then no preview gets a pod.
    """
    opts = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(protect=protect))
    known = pulumi.Output.all(repository, preview_repository).apply(
        lambda urls: {
            policy.name: policy
            for policy in admission_policies(replace(facts, repository=urls[0], preview_repository=urls[1]))
        }
    )
    names = [policy.name for policy in admission_policies(facts)]
    return [
        resource
        for name in names
        for resource in bound_policy(
            name, known[name].apply(AdmissionPolicy.spec), known[name].apply(AdmissionPolicy.binding), opts
        )
    ]
