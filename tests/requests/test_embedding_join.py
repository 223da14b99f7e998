"""What takes sound like is kept once for each take, whichever comes first."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.requests.test_resolve import resolved
from timbred.protocol.boundary import ClientId
from timbred.requests.job import Job, JobStore, State
from timbred.requests.postprocess import EmbeddingJoin


def joining_job(number: int, keep_ended_s: float = 600.0) -> tuple[JobStore, Job]:
    store, job = JobStore(keep_ended_s), Job(number, ClientId("a"), "a", resolved())
    store.add(job)
    return store, job


def keeping(kept: list[tuple[str, str, bytes]]) -> Callable[[str, str, bytes], None]:
    return lambda take_id, ear, vector: kept.append((take_id, ear, vector))


@given(st.permutations(["take 0", "take 1", "heard"]), st.booleans())
def test_embedding_join_stores_the_vector_of_each_take_once(order: list[str], late: bool) -> None:
    kept: list[tuple[str, str, bytes]] = []
    store, job = joining_job(7)
    hearings = EmbeddingJoin(store, keeping(kept))
    hearings.expect(job)
    if late:  # the sounds became takes before the engine had listened
        order = sorted(order, key=lambda event: event == "heard")
    for event in order:
        if event == "heard":
            if late:
                hearings.delivered(job)
            hearings.ready(7, "ear", [b"0", b"1"])
        else:
            hearings.add_take(job, int(event[-1]), event)
    hearings.delivered(job)
    assert sorted(kept) == [("take 0", "ear", b"0"), ("take 1", "ear", b"1")]
    hearings.ready(7, "ear", [b"0", b"1"])
    assert len(kept) == 2


@pytest.mark.parametrize("end", ["deaf", "gone"])
def test_embedding_join_keeps_nothing_without_an_embedding(end: str) -> None:
    kept: list[tuple[str, str, bytes]] = []
    store, job = joining_job(1)
    hearings = EmbeddingJoin(store, keeping(kept))
    hearings.expect(job)
    hearings.add_take(job, 0, "take")
    if end == "deaf":
        hearings.ready(1, "", [])
    else:
        job.engine = 2
        hearings.drop_awaited(1)
        assert store.joining(1) is job, "another engine was lost"
        hearings.drop_awaited(2)
    hearings.ready(1, "ear", [b"0"])
    hearings.delivered(job)
    assert not kept


def test_embedding_join_stores_embeddings_that_come_after_the_job_was_forgotten() -> None:
    kept: list[tuple[str, str, bytes]] = []
    store, job = joining_job(1, keep_ended_s=0.0)
    embeddings = EmbeddingJoin(store, keeping(kept))
    embeddings.expect(job)
    embeddings.add_take(job, 0, "take")
    job.move(State.RENDERING)
    store.end(job)
    embeddings.delivered(job)
    assert store.get(job.client, job.id) is None
    embeddings.ready(1, "model", [b"0"])
    assert kept == [("take", "model", b"0")]
    assert store.joining(1) is None
