"""Who is next, what is remembered, and which moves a job can make."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.requests.test_resolve import resolved
from timbred.protocol.boundary import ClientId
from timbred.requests.job import TRANSITIONS, Job, JobStore, State

NUMBERS = itertools.count(1)


def job(client: str = "udp:a:1", identity: str | int = "a", **keys: Any) -> Job:
    return Job(next(NUMBERS), ClientId(client), identity, resolved(**keys))


@given(st.lists(st.sampled_from(["live", "normal", "background"]), max_size=12))
def test_job_queue_orders_by_priority_then_arrival(priorities: list[str]):
    store = JobStore(600.0)
    jobs = [job(identity=number, priority=priority) for number, priority in enumerate(priorities)]
    for one in jobs:
        store.add(one)
    ranks = {"live": 0, "normal": 1, "background": 2}
    expected = sorted(jobs, key=lambda one: (ranks[one.parameters.priority], one.number))
    assert store.waiting() == expected
    for one in expected:
        assert store.waiting()[0] is one
        one.move(State.RENDERING)
    assert store.waiting() == []


def test_job_queue_places_a_job_that_lost_its_engine_before_its_equals():
    store = JobStore(600.0)
    waiting, lost = job(identity="a"), job(identity="b")
    store.add(waiting)
    store.add(lost)
    assert store.waiting() == [waiting, lost]
    lost.attempts = 1
    assert store.waiting() == [lost, waiting]


def test_job_queue_passes_over_a_job_that_is_not_ready():
    store = JobStore(600.0)
    unready, ready = job(identity="a"), job(identity="b")
    unready.ready = False
    store.add(unready)
    store.add(ready)
    assert (store.waiting(), store.waiting(ready_only=True)) == ([unready, ready], [ready])


@given(st.lists(st.sampled_from(list(State)), max_size=6))
def test_job_makes_only_declared_transitions(moves: list[State]):
    one = job()
    for state in moves:
        before = one.state
        if state in TRANSITIONS[before]:
            one.move(state)
            assert one.state is state
        else:
            with pytest.raises(RuntimeError):
                one.move(state)
            assert one.state is before


def test_job_reaches_the_end_from_every_state():
    for state in State:
        assert state is State.ENDED or State.ENDED in TRANSITIONS[state]


def test_job_store_remembers_an_ended_request_for_its_time():
    now = [0.0]
    remembered = JobStore(600.0, lambda: now[0])
    one = job(identity=5)
    remembered.add(one)
    assert remembered.get(one.client, "5") is one, "Pd may send the number as a symbol"
    remembered.end(one)
    now[0] = 599.9
    assert remembered.get(one.client, 5) is one
    now[0] = 600.0
    assert remembered.get(one.client, 5) is None


def test_job_store_never_forgets_a_live_request():
    now = [0.0]
    remembered = JobStore(1.0, lambda: now[0])
    one = job()
    remembered.add(one)
    now[0] = 1e9
    assert remembered.get(one.client, "a") is one
    assert list(remembered.live(one.client)) == [one]
    assert list(remembered.live(ClientId("udp:b:2"))) == []
