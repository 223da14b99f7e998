"""The engine process: the program around an `Engine`.

Started by `link` as `python -m timbred.engine.worker`. It ends when its standard input closes, so that it never
outlives its daemon.
"""

import argparse
import gc
import logging
import os
import signal
import sys
from pathlib import Path

import torch

from timbred import errors
from timbred.engine import device
from timbred.engine.adapters.loading import quiet_libraries
from timbred.engine.adapters.prepared import Workshop
from timbred.engine.engine import Engine
from timbred.processes.ending import end_with_daemon, leave

log = logging.getLogger("timbred.engine")

SWITCHING = 0.001
"""Seconds after which a thread that loads or compiles must let the one that generates go on."""

YOUNG = (2_000, 2, 2_000)
"""Objects made, and not gone by themselves, before Python looks for cycles among them: a millisecond's work, and three
each third time. Among all objects it hardly ever looks: loading and unloading leaves no cycles."""

NICENESS = 5
"""How far the engine stands back behind music software and behind the daemon, which answers while models compute."""


def main(arguments: list[str] | None = None) -> int:
    """The process's entry. Exit status 2 when the device can't be used."""
    parser = argparse.ArgumentParser(prog="timbred-engine")
    parser.add_argument("--address", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--memory", type=int, default=0, help="bytes that models may fill; 0: most of the device's")
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="off")
    parser.add_argument("--cache", default="", help="folder for what was compiled")
    parser.add_argument("--heartbeat", type=float, default=1.0)
    parser.add_argument("--log-level", default="info")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches us too; the daemon decides
    end_with_daemon(options.address)
    quiet_libraries()
    sys.setswitchinterval(SWITCHING)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    gc.freeze()  # looking through all that was imported would stop every thread for as long as twenty steps
    gc.set_threshold(*YOUNG)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        chosen = device.choose(options.device)
    except errors.BadRequest as error:
        log.error("%s", error)
        return 2
    workshop = Workshop(options.compile if options.cache else "off", chosen.place, Path(options.cache).expanduser())
    Engine(chosen, options.address, options.token, options.heartbeat, options.memory, workshop).run()
    leave(0)


if __name__ == "__main__":
    sys.exit(main())
