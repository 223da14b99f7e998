"""More urgency for the thread that mixes, where the system gives it."""

import logging
import os
import sys

import psutil

log = logging.getLogger(__name__)

REALTIME = 10
"""Priority among real-time threads: above everything usual, below sound drivers and JACK."""

NICE = -11


def raise_priority() -> bool:
    """Raise this thread's priority; False when the system doesn't allow it, which is no fault."""
    return _realtime() or _nice()


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
