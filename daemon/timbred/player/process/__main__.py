"""Entry point of the player process: `python -m timbred.player.process`."""

import argparse
import contextlib
import gc
import importlib
import logging
import signal
import sys
from typing import Any

from timbred.ipc import player_messages
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

log = logging.getLogger("timbred.player")

DEVICE_LOST_STATUS = 75
"""Exit status after the device was lost."""


def main(arguments: list[str] | None = None) -> int:
    """Run a player until its daemon orders the end, or ends itself."""
    parser = argparse.ArgumentParser(prog="timbred-player")
    add_line_options(parser)
    parser.add_argument("--device", default="")
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--lead", type=float, default=0.01)
    parser.add_argument("--limit", type=int, default=1)
    parser.add_argument("--heartbeat", type=float, default=0.25)
    parser.add_argument("--tempo", type=float, default=120.0)
    parser.add_argument("--beats-per-bar", type=float, default=4.0)
    parser.add_argument("--link", type=int, default=0)
    parser.add_argument("--link-offset", type=float, default=0.0)
    parser.add_argument("--link-start-stop", type=int, default=0)
    parser.add_argument("--log-level", default="info")
    read = parser.parse_args(arguments)
    logging.basicConfig(level=read.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C in a terminal is sent to this process too; the daemon handles it
    exit_on_thread_failure()
    gc.disable()  # imports make no garbage; the player loop collects none either
    wait_as_spare(read, _import_all)
    options: dict[str, Any] = {name: value for name, value in vars(read).items() if name not in ("log_level", "spare")}
    options.update({name: bool(options[name]) for name in ("limit", "link", "link_start_stop")})
    try:
        from timbred.player.process.player_loop import AudioDeviceLost, PlayerLoop, PlayerOptions

        player = PlayerLoop(PlayerOptions(**options))
    except Exception as error:
        message = describe_start_error(error)
        log.error("%s", message, exc_info=error)
        refusal = player_messages.PlayerCannotStart(token=options["token"], message=message)
        send_last_message(options["address"], player_messages.encode(refusal))
        exit_immediately(CANNOT_START_STATUS)
    status = 0
    exit_with_daemon(options["address"], player.stop_with_daemon)
    try:
        player.run()
    except AudioDeviceLost as gone:
        log.warning("%s", gone)
        status = DEVICE_LOST_STATUS
    player.close()
    exit_immediately(status)


def _import_all() -> None:
    """Import all modules of a player without starting PortAudio: listing devices may disturb those in use."""
    importlib.import_module("timbred.player.process.player_loop")
    for name in ("_sounddevice", "_rtmixer"):
        with contextlib.suppress(ImportError, OSError):  # reported when a device is opened
            importlib.import_module(name)


if __name__ == "__main__":
    sys.exit(main())
