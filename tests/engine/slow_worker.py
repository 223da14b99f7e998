"""The real engine, which loads the model `slow` part by part.

At each part it connects to the socket TIMBRED_TEST_GATE, sends the part's name, and continues when the other side
closes the connection.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from timbred.engine import __main__, model_manager
from timbred.engine.families import component_loader
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.memory.device_memory import DeviceMemory


def part(name: str) -> None:
    if threading.current_thread().name != "load-slow":
        return
    with socket.socket(socket.AF_UNIX) as gate:
        gate.connect(os.environ["TIMBRED_TEST_GATE"])
        gate.sendall(f"{name}\n".encode())
        gate.recv(1)


def gated(owner: Any, name: str, reported: Callable[..., str]) -> None:
    """Let a function be a part of the load; `told` names it, given what the function is given."""
    plain = getattr(owner, name)

    def slow(*given: Any, **named: Any) -> Any:
        part(reported(*given))
        return plain(*given, **named)

    setattr(owner, name, slow)


def component(_checkpoint: object, name: str, *_: object) -> str:
    return name


def moved(_places: DeviceMemory, held: Any, *_: object) -> str:
    return f"moving {type(held.module).__name__}"


def main() -> int:
    gated(model_manager, "estimate_memory_needs", lambda *_: "sizes")
    gated(component_loader, "_load", component)
    gated(component_loader, "_digest", lambda *_: "digest")
    gated(model_manager, "make_resident", lambda *_: "making")
    gated(DeviceMemory, "_move", moved)
    gated(LatentDiffusion, "use_compile_queue", lambda *_: "preparing")
    return __main__.main()


if __name__ == "__main__":
    sys.exit(main())
