"""A first sound in TouchDesigner, without the component.

The tests run these functions against a real daemon with substitutes for the operators, because TouchDesigner can't run
headless.

1. An OSC Out DAT `oscout1`: network address 127.0.0.1, port 7770.
2. An OSC In DAT `oscin1`: port 7780, with this file as its callbacks DAT.
3. An Audio File In CHOP `audiofilein1`, play mode Sequential.
4. From a button or the textport: `op('oscin1_callbacks').module.ask('a deep punchy kick drum')`

`@port` sends the answers to the OSC In DAT, because an OSC Out DAT can't receive.
"""

import uuid
from typing import Any

import td

ANSWERS = 7780
"""The OSC In DAT's port."""


def ask(prompt: str, seconds: float = 1.0) -> str:
    """Request a sound; returns the request's id."""
    request = uuid.uuid4().hex
    td.op("oscout1").sendOSC("/timbred/generate", [request, prompt, "@seconds", seconds, "@port", ANSWERS])
    return request


def onReceiveOSC(
    dat: Any, row_index: int, message: str, raw: bytes, time_stamp: float, address: str, args: list[Any], peer: Any
) -> None:
    """Handle an answer; called by TouchDesigner."""
    if address == "/timbred/progress":
        print(f"timbred: {args[1]:.0%}")
    elif address == "/timbred/take":
        player = td.op("audiofilein1")
        player.par.file = args[2]
        player.par.cuepulse.pulse()
    elif address == "/timbred/fail":
        print(f"timbred: {args[2]} ({args[1]})")
