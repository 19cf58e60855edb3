"""Which database a version of the application's secret leads to."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import PreflightError
from infra.foundation import secret_versions

IDENTIFIERS = st.from_regex("[a-z](-?[a-z0-9]){0,20}", fullmatch=True)
OTHERS = st.lists(st.sampled_from(["AWSCURRENT", "AWSPREVIOUS", "AWSPENDING"]), unique=True)


@given(st.one_of(st.just(""), IDENTIFIERS), OTHERS)
def test_a_label_tells_the_instance_it_was_made_for(identifier: str, others: list[str]) -> None:
    stages = [*others, *([secret_versions.restored_label(identifier)] if identifier else [])]
    assert secret_versions.restored_instance(sorted(stages)) == identifier


@given(IDENTIFIERS)
def test_no_two_versions_share_a_label(identifier: str) -> None:
    labels = {secret_versions.restored_label(identifier) for _ in range(20)}
    assert len(labels) == 20
    assert all(len(label) <= 256 for label in labels), "docs: at most 256 characters"


@given(st.one_of(st.just(""), IDENTIFIERS), st.one_of(st.just(""), IDENTIFIERS))
def test_a_release_and_a_rollback_use_the_database_of_the_settings_or_none(current: str, wanted: str) -> None:
    stages = ["AWSCURRENT", *([secret_versions.restored_label(current)] if current else [])]
    if current == wanted:
        secret_versions.refuse_other_database(stages, wanted)
        secret_versions.refuse_record_of_other_database("v1.0.0-r1", stages, wanted)
        return
    for name in filter(None, (current, wanted)):
        with pytest.raises(PreflightError, match=f"the restored database {re.escape(name)}"):
            secret_versions.refuse_other_database(stages, wanted)
        with pytest.raises(PreflightError, match=f"v1.0.0-r1.*the restored database {re.escape(name)}"):
            secret_versions.refuse_record_of_other_database("v1.0.0-r1", stages, wanted)


@pytest.mark.parametrize("is_set", [True, False])
@given(current=st.one_of(st.just(""), IDENTIFIERS))
def test_settings_may_not_forget_the_database_of_the_live_release(*, is_set: bool, current: str) -> None:
    stages = [secret_versions.restored_label(current)] if current else []
    if is_set or not current:
        secret_versions.refuse_forgotten_restore("v1.0.0-r1", stages, is_set=is_set)
        return
    with pytest.raises(PreflightError, match=f"live v1.0.0-r1 uses the restored database {re.escape(current)}, and"):
        secret_versions.refuse_forgotten_restore("v1.0.0-r1", stages, is_set=is_set)


def test_the_current_version_is_the_one_that_says_so() -> None:
    secret = {"VersionIdsToStages": {"a": ["AWSPREVIOUS"], "b": ["restored:x:1", "AWSCURRENT"]}}
    assert secret_versions.current_version(secret) == ("b", ["AWSCURRENT", "restored:x:1"])
    assert secret_versions.current_version({}) == ("", [])
