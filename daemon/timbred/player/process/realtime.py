"""Real-time priority for the mixing thread, and memory that isn't swapped out, where the system allows it."""

import ctypes
import logging
import os
import sys

import psutil

log = logging.getLogger(__name__)

REALTIME_PRIORITY = 4
"""Priority among real-time threads: above ordinary ones, below JACK (10 by default, its clients' callbacks 5)."""

NICE_VALUE = -11
"""Priority of the process where there is no real-time one."""

MLOCK_FLAGS = 1 | 2 | 4
"""MCL_CURRENT, MCL_FUTURE and MCL_ONFAULT of mlockall(2)."""


def raise_priority() -> bool:
    """Raise this thread's priority. Returns False if the system doesn't allow it."""
    return _set_realtime() or _set_nice()


def lock_memory() -> bool:
    """Lock the process's memory, as swapping it in again takes longer than a block.

    Only where there is no limit for locked memory: beyond a limit nothing more could be allocated. Returns False if it
    isn't locked.
    """
    if sys.platform != "linux" or not _can_lock_everything():
        return False
    return ctypes.CDLL(None, use_errno=True).mlockall(MLOCK_FLAGS) == 0


def _can_lock_everything() -> bool:
    import resource

    return os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY


def _set_realtime() -> bool:
    if sys.platform != "linux":
        return False
    try:
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK  # threads started later get normal priority
        os.sched_setscheduler(0, policy, os.sched_param(REALTIME_PRIORITY))
    except OSError as error:
        log.info("no real-time priority (%s); give your user `rtprio` in /etc/security/limits.d", error.strerror)
        return False
    return True


def _set_nice() -> bool:
    process = psutil.Process()
    try:
        process.nice(psutil.HIGH_PRIORITY_CLASS if sys.platform == "win32" else NICE_VALUE)
    except (psutil.AccessDenied, PermissionError):
        return False
    return True
