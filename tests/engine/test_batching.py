"""Who steps together: pure decisions."""

import math

from hypothesis import given
from hypothesis import strategies as st

from timbred.engine.batching import Candidate, next_batch

CANDIDATES = st.lists(
    st.builds(
        Candidate,
        number=st.integers(0, 50),
        group=st.sampled_from(["a", "b"]),
        rank=st.integers(0, 2),
        rows=st.integers(1, 8),
        exclusive=st.booleans(),
        urgent_deadline=st.sampled_from([math.inf, math.inf, 1.0, 2.0]),
    ),
    max_size=10,
    unique_by=lambda one: one.number,
)


@given(CANDIDATES, st.integers(1, 16))
def test_next_batch_always_contains_the_next_in_turn(candidates: list[Candidate], most_rows: int):
    batch = next_batch(candidates, most_rows)
    if not candidates:
        assert batch == []
        return
    assert batch[0] == min(candidates, key=lambda one: (one.urgent_deadline, one.rank, one.number))


@given(CANDIDATES, st.integers(1, 16))
def test_next_batch_adds_only_jobs_of_one_kind_that_fit(candidates: list[Candidate], most_rows: int):
    batch = next_batch(candidates, most_rows)
    assert len({one.group for one in batch}) <= 1
    assert len(batch) <= 1 or sum(one.rows for one in batch) <= most_rows
    assert len(batch) <= 1 or not any(one.exclusive or one.urgent_deadline < math.inf for one in batch)


@given(CANDIDATES, st.integers(1, 16))
def test_next_batch_adds_only_live_jobs_to_a_live_job(candidates: list[Candidate], most_rows: int):
    batch = next_batch(candidates, most_rows)
    if batch and batch[0].rank == 0:
        assert all(one.rank == 0 for one in batch)


def test_next_batch_adds_the_next_in_turn_before_a_later_one():
    first, second, third = (Candidate(number, "a", 1, 4) for number in range(3))
    assert next_batch([third, second, first], 8) == [first, second]
