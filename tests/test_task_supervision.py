"""No background task ends unseen: each failure is logged, told, and retried or ends the daemon."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import uvicorn

from tests.patience import TIMEOUT_S
from timbred import errors, server, task_supervision
from timbred.config import load
from timbred.ipc.child_exit import THREAD_FAILED_STATUS
from timbred.task_supervision import MAX_FAULTS, Supervisor


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_supervision, "RESTART_DELAYS_S", (0.0, 0.0))


async def _fails() -> None:
    raise RuntimeError("told to fail")


async def test_supervisor_logs_and_reports_the_failure_of_a_task(caplog: pytest.LogCaptureFixture):
    async def scene() -> None:
        supervisor = Supervisor()
        for number in (1, 2):
            await asyncio.wait([supervisor.run(_fails(), f"deliver-{number}")])
        (fault,) = supervisor.faults
        assert (fault.task, fault.reason, fault.count) == ("deliver-2", "RuntimeError: told to fail", 2)
        assert "deliver-2: RuntimeError: told to fail (2 times" in str(fault)
        assert not supervisor.broken.is_set()

    await scene()
    assert caplog.text.count("RuntimeError: told to fail") >= 2


async def test_supervisor_treats_a_cancelled_task_as_no_failure():
    supervisor = Supervisor()
    task = supervisor.run(asyncio.sleep(3600), "waits")
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert supervisor.faults == []


async def test_supervisor_restarts_a_kept_task_until_it_is_cancelled():
    supervisor, starts, steady = Supervisor(), 0, asyncio.Event()

    async def work() -> None:
        nonlocal starts
        starts += 1
        if starts < 4:
            raise OSError("a folder is missing")
        steady.set()
        await asyncio.Event().wait()

    task = supervisor.keep(work, "keeps")
    await asyncio.wait_for(steady.wait(), TIMEOUT_S)
    assert [fault.count for fault in supervisor.faults] == [3]
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_supervisor_breaks_the_daemon_when_a_required_task_fails():
    supervisor = Supervisor()
    supervisor.require(_fails(), "http")
    await asyncio.wait_for(supervisor.broken.wait(), TIMEOUT_S)
    assert supervisor.reason == "http failed (RuntimeError: told to fail); start timbred again"


def test_supervisor_remembers_only_the_latest_kinds_of_failures():
    supervisor = Supervisor()
    for letter in "abcdefghijklmnopqrstuvwxyz":
        supervisor.failed(letter, "told to fail")
    assert [fault.task for fault in supervisor.faults] == list("abcdefghijklmnopqrstuvwxyz")[-MAX_FAULTS:]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_supervisor_reports_failures_of_threads_and_callbacks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # so that it is set back

    async def scene() -> None:
        supervisor = Supervisor()
        supervisor.watch_loop()

        def fail() -> None:
            raise KeyError("told to fail")

        asyncio.get_running_loop().call_soon(fail)
        thread = threading.Thread(target=fail, name="reader")
        thread.start()
        while len(supervisor.faults) < 2:
            await asyncio.sleep(0.01)
        thread.join()
        assert "reader" in {fault.task for fault in supervisor.faults}

    await asyncio.wait_for(scene(), TIMEOUT_S)


def test_child_exit_ends_the_process_when_a_thread_fails():
    program = (
        "import threading\n"
        "from timbred.ipc.child_exit import exit_on_thread_failure\n"
        "exit_on_thread_failure()\n"
        "threading.Thread(target=lambda: 1 / 0, name='mailbox').start()\n"
        "threading.Event().wait()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == THREAD_FAILED_STATUS
    assert "the thread mailbox failed" in done.stderr
    assert "ZeroDivisionError" in done.stderr


async def test_server_stops_with_the_reason_when_http_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    async def serve(*_: object, **__: object) -> None:
        raise RuntimeError("told to fail")

    monkeypatch.setattr(uvicorn.Server, "serve", serve)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setenv("TIMBRED_ENGINE_PROGRAM", "/no/such/engine")
    free = [f"{name}=0" for name in ("osc.port", "zmq.requests", "zmq.events", "http.port", "discovery.announce")]
    config = load(None, {}, [*free, f"takes.folder={tmp_path}", "player.device=no such device"])
    with pytest.raises(errors.Internal, match=r"http failed \(RuntimeError: told to fail\); start timbred again"):
        await server.serve(config, lambda _line: None)
