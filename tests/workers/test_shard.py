"""The state of a shard: whatever dies when, every item is dealt with once, and only what kills is quarantined."""

from hypothesis import given
from hypothesis import strategies as st

from workers.shard import Outcome, ShardState

ATTEMPTS = 3


def run(count: int, poison: set[int], dies: st.DataObject | None = None) -> tuple[ShardState, list[int], int]:
    """Work on a shard as workers do, through JSON between deliveries; gives its end, what was stored, the deaths."""
    stored: list[int] = []
    deaths = 0
    written = ShardState.fresh(count).model_dump_json()
    while True:
        state = ShardState.model_validate_json(written)
        culprit = state.recover(ATTEMPTS)
        if culprit is not None:
            state.finish(Outcome(failures=[{"source": str(culprit)}]))
        died = False
        while span := state.begin():
            written = state.model_dump_json()
            items = set(range(span.begin, span.end))
            if items & poison or (dies is not None and deaths < 5 and dies.draw(st.integers(0, 9)) == 0):
                died = True
                break
            stored += sorted(items)
            state.finish(Outcome(indexed=len(items)))
        if not died:
            return state, stored, deaths
        deaths += 1
        assert deaths < 1000, "it never ends"


@given(count=st.integers(0, 300), poison=st.sets(st.integers(0, 299), max_size=4))
def test_poison_is_alone_in_quarantine(count: int, poison: set[int]) -> None:
    poison = {each for each in poison if each < count}
    state, stored, deaths = run(count, poison)
    assert {int(failure["source"]) for failure in state.failures} == poison
    assert sorted(stored) == sorted(set(range(count)) - poison)
    assert state.total == count
    assert deaths <= 6 * len(poison)


@given(count=st.integers(1, 300), data=st.data())
def test_workers_that_die_of_something_else_cost_no_item(count: int, data: st.DataObject) -> None:
    state, stored, _ = run(count, set(), data)
    assert state.total == count
    assert len(stored) + len(state.failures) == count == len(set(stored)) + len(state.failures)


def test_what_is_let_go_of_counts_no_death() -> None:
    state = ShardState.fresh(1)
    for _ in range(10):
        assert state.begin() is not None
        state.put_back()
        assert ShardState.model_validate_json(state.model_dump_json()).recover(ATTEMPTS) is None
    assert state.kills == {}


def test_a_part_of_one_dies_three_times_before_it_is_given_up() -> None:
    state = ShardState.fresh(1)
    for _ in range(ATTEMPTS - 1):
        assert state.begin() is not None
        assert state.recover(ATTEMPTS) is None
    assert state.begin() is not None
    assert state.recover(ATTEMPTS) == 0
