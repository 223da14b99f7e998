"""More urgency for the thread that mixes, and memory that stays in memory, where the system gives it."""

import ctypes
import logging
import os
import sys

import psutil

log = logging.getLogger(__name__)

REALTIME = 4
"""Priority among real-time threads: above everything usual, below what takes our sound. A JACK server as it comes has
10, and its clients' callbacks five less."""

NICE = -11

CURRENT_AND_FUTURE_ONCE_TOUCHED = 1 | 2 | 4
"""MCL_CURRENT, MCL_FUTURE and MCL_ONFAULT of mlockall(2)."""


def raise_priority() -> bool:
    """Raise this thread's priority; False when the system doesn't allow it, which is no fault."""
    return _realtime() or _nice()


def hold_memory() -> bool:
    """Keep the system from taking our memory back while it isn't touched: fetching it again takes longer than a block.

    Only where there is no limit to what may be held, for beyond one nothing more could be allocated. False where it
    isn't done, which is no fault.
    """
    if sys.platform != "linux" or not _may_hold_everything():
        return False
    return ctypes.CDLL(None, use_errno=True).mlockall(CURRENT_AND_FUTURE_ONCE_TOUCHED) == 0


def _may_hold_everything() -> bool:
    import resource

    return os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY


def _realtime() -> bool:
    if sys.platform != "linux":
        return False
    try:
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK  # threads made later stay usual ones
        os.sched_setscheduler(0, policy, os.sched_param(REALTIME))
    except OSError as error:
        log.info("no real-time priority (%s); give your user `rtprio` in /etc/security/limits.d", error.strerror)
        return False
    return True


def _nice() -> bool:
    process = psutil.Process()
    try:
        process.nice(psutil.HIGH_PRIORITY_CLASS if sys.platform == "win32" else NICE)
    except (psutil.AccessDenied, PermissionError):
        return False
    return True
