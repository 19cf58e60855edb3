"""Which database a version of the application's secret leads to."""

import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import PreflightError
from infra.foundation import secret_versions
from infra.settings.platform import LONGEST_RESTORED_NAME

IDENTIFIERS = st.from_regex("[a-z](-?[a-z0-9])*", fullmatch=True).filter(
    lambda name: len(name) <= LONGEST_RESTORED_NAME
)


def version_of(identifier: str) -> str:
    """Return a version that leads to a restored instance, or to the first one for no name."""
    return secret_versions.restored_version(identifier) if identifier else "11111111-1111-1111-1111-111111111111"


@given(IDENTIFIERS)
def test_a_version_tells_the_instance_it_was_made_for(identifier: str) -> None:
    versions = {secret_versions.restored_version(identifier) for _ in range(20)}
    assert len(versions) == 20, "each restore makes one of its own"
    for version in versions:
        assert secret_versions.restored_instance(version) == identifier
        assert len(version) == 64, "docs: 32 to 64 characters"


@given(st.uuids())
def test_a_version_that_secrets_manager_names_leads_to_the_first_instance(version: UUID) -> None:
    assert secret_versions.restored_instance(str(version)) == ""


@given(st.one_of(st.just(""), IDENTIFIERS), st.one_of(st.just(""), IDENTIFIERS))
def test_a_release_and_a_rollback_use_the_database_of_the_settings_or_none(current: str, wanted: str) -> None:
    version = version_of(current)
    if current == wanted:
        secret_versions.refuse_other_database(version, wanted)
        secret_versions.refuse_record_of_other_database("v1.0.0-r1", version, wanted)
        return
    for name in filter(None, (current, wanted)):
        with pytest.raises(PreflightError, match=f"the database {re.escape(name)}"):
            secret_versions.refuse_other_database(version, wanted)
        with pytest.raises(PreflightError, match=f"v1.0.0-r1.*the database {re.escape(name)}"):
            secret_versions.refuse_record_of_other_database("v1.0.0-r1", version, wanted)


@pytest.mark.parametrize("is_set", [True, False])
@given(current=st.one_of(st.just(""), IDENTIFIERS))
def test_settings_may_not_forget_the_database_of_the_live_release(*, is_set: bool, current: str) -> None:
    if is_set or not current:
        secret_versions.refuse_forgotten_restore("v1.0.0-r1", version_of(current), is_set=is_set)
        return
    with pytest.raises(PreflightError, match=f"live v1.0.0-r1 uses the database {re.escape(current)}, and"):
        secret_versions.refuse_forgotten_restore("v1.0.0-r1", version_of(current), is_set=is_set)


@given(IDENTIFIERS, IDENTIFIERS)
def test_a_version_of_the_first_instance_is_another_one_s_once_it_is_first_no_more(name: str, later: str) -> None:
    version = secret_versions.first_version(name)
    assert len(version) == 64
    assert secret_versions.restored_instance(version, name) == ""
    secret_versions.refuse_forgotten_restore("v1.0.0-r1", version, later, is_set=False)
    if name != later:
        with pytest.raises(PreflightError, match=f"v1.0.0-r1 would bring its users to the database {re.escape(name)}"):
            secret_versions.refuse_record_of_other_database("v1.0.0-r1", version, "", later)


@given(IDENTIFIERS, st.booleans())
def test_a_restored_instance_that_became_the_first_one_is_no_restored_one(name: str, is_set: bool) -> None:  # noqa: FBT001
    version = version_of(name)
    assert secret_versions.restored_instance(version, name) == ""
    secret_versions.refuse_forgotten_restore("v1.0.0-r1", version, name, is_set=is_set)
    secret_versions.refuse_other_database(version, "", name)
    secret_versions.refuse_record_of_other_database("v1.0.0-r1", version, "", name)
    assert secret_versions.restored_instance(version, f"{name}-first") == name


def test_the_current_version_is_the_one_that_says_so() -> None:
    secret = {"VersionIdsToStages": {"a": ["AWSPREVIOUS"], "b": ["AWSCURRENT", "of-somebody"]}}
    assert secret_versions.current_version(secret) == "b"
    assert secret_versions.current_version({}) == ""
