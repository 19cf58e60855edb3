"""`shopcat:keepFormer`: what is kept can be rolled back to, has room, and is the same before and after a release goes live."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import settings
from infra.capacity import ProductionDemand
from infra.errors import ShopCatError
from infra.names import other_colour
from infra.release import plan
from infra.release.decide import Abort, Nothing, Rollback, Rotate, Tag, Wanted, decide
from infra.release.state import LedgerState
from infra.release.transitions import aborted, claimed, gone_live
from tests.unit.releases import template
from tests.unit.test_settings import committed

COUNTED = settings.read_settings(committed()).production
SMALL = {
    "replicas": COUNTED.replicas,
    "cpu_millicores": COUNTED.pod.cpu_millicores,
    "memory_mebibytes": COUNTED.pod.memory_mebibytes,
    "disk_mebibytes": COUNTED.pod.disk_mebibytes,
}
SIZES = [SMALL, *({**SMALL, name: value + 1} for name, value in SMALL.items())]
Step = tuple[str, int, bool, int]
"""What is wanted, which of the releases it is about, `contracts`, and which of the sizes."""
STEPS = st.tuples(
    st.sampled_from(["tag", "tag", "rollback", "rotate"]),
    st.integers(0, 5),
    st.booleans(),
    st.integers(0, len(SIZES) - 1),
)


def wanted_of(step: Step, state: LedgerState) -> Wanted:
    """Return what a person may want of this state."""
    kind, which, contracts, size = step
    if kind == "tag" or state.live is None:
        number = len(state.releases) + 1
        return Tag(f"v{number}", template(number, contracts=contracts, **SIZES[size]))
    if kind == "rotate":
        return Rotate(state.live.name)
    names = sorted(state.releases)
    return Rollback(state.live.name, names[which % len(names)])


def kept_by(state: LedgerState, wanted: Wanted, counted: ProductionDemand = COUNTED) -> set[str]:
    """Return the releases whose pods an update keeps without weight."""
    colours = plan._colours(decide(wanted, state), state, keeps_former=True, counted=counted)
    return {each.record.name for each in colours.values() if each.is_kept}


@given(st.lists(st.tuples(STEPS, st.booleans()), max_size=8))
def test_what_is_kept_can_be_rolled_back_to_without_starting_anything(steps: Sequence[tuple[Step, bool]]) -> None:
    state = LedgerState(version=1)
    for step, goes_live in steps:
        wanted = wanted_of(step, state)
        try:
            decision = decide(wanted, state)
        except ShopCatError:
            continue
        if decision.action != "release":
            continue
        opened = claimed(state, decision, f"2026-11-24T10:{state.version:02}:00+00:00")
        during = kept_by(state, wanted)
        assert during == kept_by(opened, Nothing()), "an update that goes on keeps the same"
        assert kept_by(opened, Abort(decision.open.tag if decision.open else "")) == set()
        state = gone_live(opened) if goes_live else aborted(opened)
        after = kept_by(state, Nothing())
        assert after == (during if goes_live else set())
        for name in after:
            former, live = state.release(name), state.live
            assert live is not None
            assert former.colour == other_colour(live.colour)
            back = decide(Rollback(live.name, name), state)
            assert back.record == former.record, "with the password and the pods that it has"
            assert all(getattr(former.record.template, key) <= most for key, most in SMALL.items())


@pytest.mark.parametrize("changes", [{"replicas": 9}, *({name: value + 1} for name, value in SMALL.items())])
def test_pods_that_nobody_counts_room_for_are_not_kept_and_a_person_is_told(changes: dict[str, int]) -> None:
    large = {**SMALL, **changes}
    first = _live(LedgerState(version=1), Tag("v1", template(1, **large)))
    second = _live(first, Tag("v2", template(2, **SMALL)))
    enough = replace(
        COUNTED, replicas=9, pod=replace(COUNTED.pod, cpu_millicores=9999, memory_mebibytes=9999, disk_mebibytes=9999)
    )
    assert kept_by(second, Nothing()) == set()
    assert kept_by(second, Nothing(), enough) == {"v1-r1"}
    chosen = settings.read_settings(committed(keepFormer=True))
    decision = decide(Nothing(), second)
    for counted, words in (
        (COUNTED, "v1-r1 keeps no pods: they are more, or larger"),
        (enough, "v1-r1 keeps its pods in"),
    ):
        colours = plan._colours(decision, second, keeps_former=True, counted=counted)
        (note,) = plan._notes_of_former(chosen, decision, second, colours)
        assert note.startswith(words)


def test_what_a_migration_has_broken_is_not_kept() -> None:
    first = _live(LedgerState(version=1), Tag("v1", template(1, **SMALL)))
    contracting = Tag("v2", template(2, contracts=True, **SMALL))
    assert kept_by(first, contracting) == set()
    second = _live(first, contracting)
    assert kept_by(second, Nothing()) == set()
    third = _live(second, Tag("v3", template(3, **SMALL)))
    assert kept_by(third, Nothing()) == {"v2-r1"}, "nothing was removed since"


def _live(state: LedgerState, wanted: Wanted) -> LedgerState:
    return gone_live(claimed(state, decide(wanted, state), f"2026-11-24T10:{state.version:02}:00+00:00"))
