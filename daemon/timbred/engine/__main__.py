"""The engine process: command line, start and end of an `EngineScheduler`.

Started by `timbred.ipc.engine_client` as `python -m timbred.engine.__main__`. It ends when its standard input closes,
so that it never outlives its daemon. Imports that may fail come late, so that the reason can be sent to the daemon.
"""

import argparse
import gc
import importlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from timbred import errors
from timbred.ipc import engine_messages
from timbred.ipc.child_exit import (
    CANNOT_START_STATUS,
    add_line_options,
    describe_start_error,
    exit_immediately,
    exit_on_thread_failure,
    exit_with_daemon,
    send_last_message,
    wait_as_spare,
)

if TYPE_CHECKING:
    from timbred.engine.scheduler import EngineScheduler

log = logging.getLogger("timbred.engine")

SWITCH_INTERVAL_S = 0.001
"""Seconds after which a thread that loads or compiles must release the GIL to the thread that generates."""

GC_THRESHOLDS = (2_000, 2, 2_000)
"""Thresholds of garbage collection: a millisecond's work for each collection of the youngest generation.

Collections of all objects are rare: loads and unloads leave no reference cycles.
"""

NICE_INCREMENT = 5
"""Added niceness, so that music software and the daemon have priority."""


def main(arguments: list[str] | None = None) -> int:
    """Run an engine until the daemon ends it; the process's exit status is 2 when it can't start."""
    parser = argparse.ArgumentParser(prog="timbred-engine")
    add_line_options(parser)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument(
        "--memory", type=int, default=0, help="bytes that models may use; 0: most of the device's memory"
    )
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="off")
    parser.add_argument("--cache", default="", help="folder of the compilation cache; empty: none")
    parser.add_argument("--heartbeat", type=float, default=engine_messages.ENGINE_HEARTBEAT_INTERVAL_S)
    parser.add_argument("--log-level", default="info")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches all processes; the daemon decides
    exit_on_thread_failure()
    gc.disable()  # imports make no garbage, and collections take a quarter of their time
    wait_as_spare(options, _import_all)
    exit_with_daemon(options.address)
    try:
        engine = _make_engine(options)
    except Exception as error:
        is_timbred_error = isinstance(error, errors.TimbredError)
        message = str(error) if is_timbred_error else describe_start_error(error)
        log.error("%s", message, exc_info=None if is_timbred_error else error)
        send_last_message(
            options.address,
            engine_messages.encode(engine_messages.EngineCannotStart(token=options.token, message=message)),
        )
        exit_immediately(CANNOT_START_STATUS)
    engine.run()
    exit_immediately(0)


def _import_all() -> None:
    """Import all modules of an engine, including the libraries' parts that are imported on first use."""
    for name in ("engine.scheduler", "engine.families.component_loader"):
        importlib.import_module(f"timbred.{name}")


def _make_engine(options: argparse.Namespace) -> "EngineScheduler":
    """Create the engine.

    Raises:
        BadRequest: The device can't be used.
        ImportError: A library is not installed properly.
    """
    import torch

    from timbred.engine import device
    from timbred.engine.families.component_loader import quiet_libraries
    from timbred.engine.scheduler import EngineScheduler

    quiet_libraries()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if hasattr(os, "nice"):
        os.nice(NICE_INCREMENT)
    gc.freeze()  # a collection of all imported objects would stop every thread for as long as twenty steps
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()
    if options.threads:
        torch.set_num_threads(options.threads)
    compute_device = device.choose_device(options.device)
    cache_folder = Path(options.cache).expanduser() if options.cache else None
    return EngineScheduler(
        compute_device, options.address, options.token, options.heartbeat, options.memory, options.compile, cache_folder
    )


if __name__ == "__main__":
    sys.exit(main())
