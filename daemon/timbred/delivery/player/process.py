"""How the player process is started and watched."""

from timbred.config import Config
from timbred.delivery import wire
from timbred.processes.child import Trade
from timbred.processes.isolation import python_command

PLAYER_PROGRAM = python_command("timbred.delivery.playback")
"""The command that starts a player."""

HEARTBEAT = 0.25
"""Seconds between the player's signs of life."""


def trade(config: Config, program: tuple[str, ...]) -> Trade:
    """A player as these settings want it. `program` is the command that starts it."""
    options = {
        "device": config["player.device"],
        "channels": config["player.channels"],
        "lead": config["player.lead"] / 1000,
        "limit": int(config["player.limiter"]),
        "heartbeat": HEARTBEAT,
        "tempo": config["tempo"],
        "beats-per-bar": config["beats_per_bar"],
        "link": int(config["link"]),
        "link-offset": config["link.offset"] / 1000,
        "link-start-stop": int(config["link.start_stop"]),
        "log-level": config["log.level"],
    }
    return Trade(
        name="player",
        command=(*program, *(f"--{name}={value}" for name, value in options.items())),
        introduction=wire.Ready,
        refusal=wire.CannotStart,
        wire_version=wire.WIRE_VERSION,
        encode=wire.encode,
        decode=wire.read_in_daemon,
        quit=wire.Quit(),
        patience=config["player.patience"],
        environment={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
