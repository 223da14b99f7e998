"""Which process owns something on disk, and whether that process is gone."""

import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Owner:
    """A process: its number and start, and the machine, boot and container that the number belongs to.

    `locked` says that the process holds a lock on the file that names it, for as long as it lives. Then whoever gets
    that lock knows that the process has ended, and `is_gone` needs not be asked: it is for file systems without locks.
    """

    host: str
    boot: str
    container: str
    pid: int
    start: str
    locked: bool = False

    @property
    def is_gone(self) -> bool:
        """Tell whether the process has ended. False where that can't be known from here."""
        here = this_process()
        if self.host != here.host:
            return False
        if self.boot != here.boot:
            return True
        return self.container == here.container and start_of(self.pid) != self.start


def this_process() -> Owner:
    """The process that asks."""
    return Owner(platform.node(), _boot(), _container(), os.getpid(), start_of(os.getpid()))


def start_of(pid: int) -> str:
    """When a process started, in the system's own unit; empty if there is none."""
    if sys.platform == "linux":
        try:
            # the second field, a name in parentheses, may hold anything
            return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
        except OSError:
            return ""
    try:
        return str(round(psutil.Process(pid).create_time()))
    except psutil.Error:
        return ""


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""  # elsewhere the moment of the boot changes with the clock


@cache
def _container() -> str:
    """The space in which process numbers are unique; empty where there is only one."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
