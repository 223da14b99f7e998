"""Pauses of loads beside steps."""

import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytest
import torch

from tests.patience import TIMEOUT_S
from timbred.engine.memory import model_loader
from timbred.engine.memory.model_loader import LoadPacer


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a pause last until the step releases it."""
    monkeypatch.setattr(model_loader, "MAX_PAUSE_S", 2 * TIMEOUT_S)


@contextmanager
def loading(pacer: LoadPacer, events: list[str]) -> Generator[None]:
    """Create a tensor in a load in another thread, and wait for it at the end."""
    began, done = threading.Event(), threading.Event()

    def load() -> None:
        with pacer.load():
            began.set()
            torch.zeros(1)
            events.append("loaded")
            done.set()

    thread = threading.Thread(target=load)
    thread.start()
    assert began.wait(TIMEOUT_S)
    yield
    assert done.wait(TIMEOUT_S)
    thread.join(TIMEOUT_S)


@pytest.mark.usefixtures("patient")
def test_load_pacer_pauses_a_load_until_the_step_has_ended() -> None:
    pacer, events = LoadPacer(), list[str]()
    with pacer.step():
        load = loading(pacer, events)
        load.__enter__()
        events.append("step ends")
    load.__exit__(None, None, None)
    assert events == ["step ends", "loaded"]


@pytest.mark.usefixtures("patient")
def test_load_pacer_lets_a_load_continue_while_the_step_needs_no_gil() -> None:
    pacer, events = LoadPacer(), list[str]()
    with pacer.step():
        with pacer.without_gil(), loading(pacer, events):
            pass
        events.append("step ends")
    assert events == ["loaded", "step ends"]


def test_load_pacer_bounds_a_pause_beside_a_step_that_does_not_end() -> None:
    pacer, events = LoadPacer(), list[str]()
    with pacer.step():
        with loading(pacer, events):
            pass
        events.append("step ends")
    assert events == ["loaded", "step ends"]


@pytest.mark.usefixtures("patient")
def test_load_pacer_pauses_no_other_thread() -> None:
    pacer = LoadPacer()
    with pacer.step():
        assert torch.zeros(1).item() == 0.0
        with pacer.without_gil():
            pass
    with pacer.load(), pacer.without_gil():
        assert torch.zeros(1).item() == 0.0


@pytest.mark.usefixtures("patient")
def test_load_pacer_without_gil_has_no_effect_outside_a_step() -> None:
    pacer, events = LoadPacer(), list[str]()
    with pacer.without_gil():
        pass
    with loading(pacer, events):
        pass
    assert events == ["loaded"]


@pytest.mark.usefixtures("patient")
def test_load_pacer_keeps_a_step_that_ends_during_a_compiled_call_of_a_load() -> None:
    pacer, entered, may_leave = LoadPacer(), threading.Event(), threading.Event()

    def warm_up() -> None:
        with pacer.without_gil():
            entered.set()
            assert may_leave.wait(TIMEOUT_S)

    thread = threading.Thread(target=warm_up)
    with pacer.step():
        thread.start()
        assert entered.wait(TIMEOUT_S)
    may_leave.set()
    thread.join(TIMEOUT_S)
    events = list[str]()
    with loading(pacer, events):
        pass
    assert events == ["loaded"]
