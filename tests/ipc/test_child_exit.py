import subprocess
import sys
import threading

from tests.patience import TIMEOUT_S
from timbred.ipc.child_exit import has_other_threads


def test_child_exit_immediately_writes_what_is_buffered() -> None:
    program = """
import sys
from timbred.ipc.child_exit import exit_immediately
sys.stdout.write('last')
exit_immediately(3)
"""
    ended = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False, timeout=TIMEOUT_S)
    assert (ended.returncode, ended.stdout) == (3, b"last")


def test_child_exit_has_other_threads_counts_only_those_that_the_interpreter_waits_for() -> None:
    going_on = threading.Event()
    for daemon in (True, False):
        before = has_other_threads()
        thread = threading.Thread(target=going_on.wait, daemon=daemon)
        thread.start()
        assert has_other_threads() == (before or not daemon)
    going_on.set()
    thread.join()
