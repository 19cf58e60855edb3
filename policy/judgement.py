"""Findings: what the rules say about resources, and which setting accepts it. `make policy` and the pack print the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infra.commands.takeover.declaration import Declared
from policy.acceptances import Acceptance
from policy.rules import MISSING_DATA, RULES, missing_data


@dataclass(frozen=True)
class Finding:
    """The judgement of one rule on one resource."""

    rule: str
    kind: str
    """The resource's type."""
    problem: str
    acceptance: Acceptance | None = None
    """The setting that accepts it; None: the rule is broken."""

    @property
    def remark(self) -> str:
        """The problem, and why it is accepted."""
        if self.acceptance is None:
            return self.problem
        return f"{self.rule}: {self.problem}; accepted by {self.acceptance.setting}: {self.acceptance.reason}"


def _finding(rule: str, kind: str, problem: str, given: Sequence[Acceptance]) -> Finding:
    return Finding(rule, kind, problem, next((each for each in given if each.covers(rule, kind, problem)), None))


def judge(resource: Declared, given: Sequence[Acceptance] = ()) -> list[Finding]:
    """Return what all rules say about a resource, the settings being what is ``given``."""
    kind = resource.pulumi_type
    return [_finding(name, kind, problem, given) for name, rule in RULES.items() for problem in rule(resource)]


def judge_production(resources: Sequence[Declared], given: Sequence[Acceptance] = ()) -> list[Finding]:
    """Return what is wrong with production as a whole, the settings being what is ``given``."""
    return [_finding(MISSING_DATA, kind, problem, given) for kind, problem in missing_data(resources)]
