"""What takes sound like is kept once for each take, whichever comes first."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timbred.requests.postprocess import EmbeddingJoin


def keeping(kept: list[tuple[str, str, bytes]]) -> Callable[[str, str, bytes], None]:
    return lambda take_id, ear, vector: kept.append((take_id, ear, vector))


@given(st.permutations(["take 0", "take 1", "heard"]), st.booleans())
def test_each_take_gets_its_own_vector_once(order: list[str], late: bool) -> None:
    kept: list[tuple[str, str, bytes]] = []
    hearings = EmbeddingJoin(keeping(kept))
    hearings.expect(7)
    if late:  # the sounds became takes before the engine had listened
        order = sorted(order, key=lambda event: event == "heard")
    for event in order:
        if event == "heard":
            if late:
                hearings.delivered(7)
            hearings.heard(7, "ear", [b"0", b"1"])
        else:
            hearings.take(7, int(event[-1]), event)
    hearings.delivered(7)
    assert sorted(kept) == [("take 0", "ear", b"0"), ("take 1", "ear", b"1")]
    hearings.heard(7, "ear", [b"0", b"1"])
    assert len(kept) == 2


@pytest.mark.parametrize("end", ["deaf", "gone"])
def test_nothing_is_kept_of_what_was_not_heard(end: str) -> None:
    kept: list[tuple[str, str, bytes]] = []
    hearings = EmbeddingJoin(keeping(kept))
    hearings.expect(1)
    hearings.take(1, 0, "take")
    if end == "deaf":
        hearings.heard(1, "", [])
    else:
        hearings.drop()
    hearings.heard(1, "ear", [b"0"])
    hearings.delivered(1)
    assert not kept
