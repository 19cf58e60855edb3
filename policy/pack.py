"""The pack: each rule of rules.py as a policy of Pulumi's engine, mandatory unless a setting accepts what it refuses.

Runs in a virtual environment of its own (`make policy-pack`), since pulumi-policy pins another protobuf than the program has.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import pulumi
from pulumi_policy import (
    EnforcementLevel,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from infra.commands.takeover.declaration import Declared
from infra.errors import ShopCatError
from infra.names import PRODUCTION_STACK, PROJECT
from infra.settings import read_settings, stack_file
from policy.acceptances import Acceptance, acceptances
from policy.from_engine import declared
from policy.judgement import Finding, judge, judge_production
from policy.rules import MISSING_DATA, RULES, missing_data

Check = Callable[[ResourceValidationArgs, ReportViolation], None]
ACCEPTED = "accepted-by-setting"


def start() -> None:
    """Serve the pack until the engine ends it."""
    given = _given()
    policies = [_policy(name, inspect.getdoc(rule) or name, given) for name, rule in RULES.items()]
    policies.append(_accepted(given))
    if _is_production():
        policies += _whole_stack(given)
    PolicyPack(PROJECT, policies, EnforcementLevel.MANDATORY)


def _is_production() -> bool:
    return pulumi.get_stack() == PRODUCTION_STACK


def _given() -> list[Acceptance]:
    """Return what production's settings accept: nothing if they can't be read, and why not is said by the program."""
    if not _is_production():
        return []
    values = pulumi.runtime.config.get_config_env().items()
    ours = {key.partition(":")[2]: stack_file.plain(text) for key, text in values if key.startswith(f"{PROJECT}:")}
    try:
        return acceptances(read_settings(ours))
    except ShopCatError:
        return []


def _resource(of: ResourceValidationArgs) -> Declared:
    return declared(of.resource_type, of.name, of.props, protect=of.opts.protect, unknown=UnknownValueError)


def _policy(name: str, description: str, given: Sequence[Acceptance]) -> ResourceValidationPolicy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        for finding in judge(_resource(args), given):
            if finding.rule == name and finding.acceptance is None:
                report(finding.problem, None)

    return ResourceValidationPolicy(name, _first_line(description), validate)


def _accepted(given: Sequence[Acceptance]) -> ResourceValidationPolicy:
    """Return the policy that says what is accepted, and why; it stops nothing."""

    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        _say_accepted(judge(_resource(args), given), report)

    title = "Say what a setting accepts although a rule refuses it."
    return ResourceValidationPolicy(ACCEPTED, title, validate, enforcement_level=EnforcementLevel.ADVISORY)


def _say_accepted(findings: Sequence[Finding], report: ReportViolation) -> None:
    for finding in findings:
        if finding.acceptance is not None:
            report(finding.remark, None)


def _whole_stack(given: Sequence[Acceptance]) -> list[StackValidationPolicy]:
    """Return the policies about production as a whole, judged once everything of it is declared."""

    def found(args: StackValidationArgs) -> list[Finding]:
        return judge_production([_resource(each) for each in args.resources], given)

    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        for finding in found(args):
            if finding.acceptance is None:
                report(finding.problem, None)

    def say(args: StackValidationArgs, report: ReportViolation) -> None:
        _say_accepted(found(args), report)

    title = "Say what a setting of production accepts although a rule refuses it."
    return [
        StackValidationPolicy(MISSING_DATA, _first_line(inspect.getdoc(missing_data) or MISSING_DATA), validate),
        StackValidationPolicy(f"{ACCEPTED}-of-production", title, say, enforcement_level=EnforcementLevel.ADVISORY),
    ]


def _first_line(text: str) -> str:
    return text.splitlines()[0]
