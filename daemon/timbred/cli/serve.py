"""`timbred serve`."""

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from timbred import server
from timbred.cli.terminal import tell
from timbred.config import Config, load

Result = TypeVar("Result")


def settings_from(file: Path | None, flags: list[str]) -> Config:
    """Return the settings of a command: file < environment < flags. Prints warnings on standard error."""
    config = load(file, os.environ, flags)
    for warning in config.warnings:
        tell(f"timbred: warning: {warning}")
    return config


def serve(file: Path | None, flags: list[str]) -> None:
    """Run the daemon until it is stopped."""
    config = settings_from(file, flags)
    start_logging(config["log.level"])
    run(server.serve(config, _print_line))


def _print_line(line: str) -> None:
    """Print a line; log a warning if standard output can't be written."""
    try:
        print(line, flush=True)
    except OSError as error:
        logging.getLogger(__name__).warning(
            "standard output can't be written (%s); the line was: %s", error.strerror, line
        )


def start_logging(level: str) -> None:
    """Start logging to standard error."""
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on an event loop that ZeroMQ can use: the selector loop on Windows."""
    if sys.platform == "win32":
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(main)
    return asyncio.run(main)
