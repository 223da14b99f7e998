"""What models held is free when that is told, in the order it was given."""

import threading
import weakref
from functools import partial

import pytest
import torch

from tests.patience import TIMEOUT_S
from timbred.engine.memory.model_loader import DeferredFree


class Whole:
    """Holds its modules, as a model does."""

    def __init__(self) -> None:
        self.modules: list[torch.nn.Module] = [torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))]


def _make_whole() -> tuple[list[object], list[torch.nn.Module], list[weakref.ref[torch.nn.Module]]]:
    """Return the sole references to a model and to its modules, and weak references to all modules in it."""
    held = Whole()
    return [held], list(held.modules), [weakref.ref(module) for module in held.modules[0].modules()]


def test_deferred_free_frees_everything_before_it_reports():
    reported: list[str] = []
    releasing = DeferredFree(lambda: reported.append("memory given back"))
    whole, modules, parts = _make_whole()
    assert len(parts) == 3

    def then() -> None:
        reported.append(f"{sum(part() is not None for part in parts)} left")

    done = threading.Event()
    releasing.release(whole, modules, then)
    releasing.call_after(lambda: reported.append("after"))
    releasing.call_after(done.set)
    assert done.wait(TIMEOUT_S)
    assert (whole, modules) == ([], [])
    assert reported == ["memory given back", "0 left", "after"]


def test_deferred_free_keeps_what_others_share():
    releasing = DeferredFree(lambda: None)
    held = Whole()
    shared = next(held.modules[0].children())
    done = threading.Event()
    releasing.release([held], list(held.modules), done.set)
    assert done.wait(TIMEOUT_S)
    assert shared(torch.zeros(8)).shape == (8,)


def test_deferred_free_reports_after_a_fault(caplog: pytest.LogCaptureFixture):
    def fails() -> None:
        raise OSError("the device is gone")

    releasing = DeferredFree(fails)
    reported: list[str] = []
    done = threading.Event()
    for name in ("first", "second"):
        held = Whole()
        releasing.release([held], list(held.modules), partial(reported.append, name))
    releasing.call_after(done.set)
    assert done.wait(TIMEOUT_S)
    assert reported == ["first", "second"]
    assert "the device is gone" in caplog.text
