"""A first sound: starts timbred, asks it for a sound over OSC, shows the progress, prints the file's path.

    python bridges/python/first_sound.py "a bright bell"

It uses nothing that another OSC program doesn't have: one UDP socket, `/timbred/generate`, and the answers.
"""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

PROMPT = "a deep punchy kick drum"
PATIENCE = 300
"""Seconds without any answer after which something is wrong."""

console = Console(stderr=True)


@contextlib.contextmanager
def daemon(takes: Path) -> Generator[int]:
    """A daemon for this demonstration alone, on free ports; gives its OSC port."""
    command = [sys.executable, "-m", "timbred", "serve", "--set", f"takes.folder={takes}"]
    for port in ("osc.port", "zmq.requests", "zmq.events", "http.port"):
        command += ["--set", f"{port}=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        if not ready.startswith("ready"):
            sys.exit("timbred could not start; the lines above say why")
        console.print(f"timbred is {ready.strip()}")
        yield int(ready.split("osc=")[1].split()[0])
    finally:
        process.terminate()
        process.wait()


def message(address: str, *arguments: str | float) -> bytes:
    """An OSC message."""
    builder = OscMessageBuilder(address)
    for argument in arguments:
        builder.add_arg(argument)
    return builder.build().dgram


def first_sound(port: int, prompt: str) -> str:
    """Ask for a sound, follow it, and return its file's path."""
    line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    line.settimeout(PATIENCE)
    line.connect(("127.0.0.1", port))
    line.send(message("/timbred/generate", "first", prompt))
    path = ""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("asked", total=1.0)
        while True:
            answer = OscMessage(line.recv(65536))
            kind, values = answer.address.rpartition("/")[2], list(answer.params)
            match kind:
                case "queued":
                    progress.update(task, description="waiting for the engine")
                case "progress":
                    loading = values[2] == 0
                    progress.update(task, description="loading" if loading else "denoising", completed=values[1])
                case "take":
                    path = values[2]
                case "done":
                    progress.update(task, description="done", completed=1.0)
                    return path
                case "fail":
                    sys.exit(f"timbred answered {values[1]}: {values[2]}")
                case _:
                    pass


def main() -> None:
    """The demonstration."""
    prompt = " ".join(sys.argv[1:]) or PROMPT
    began = time.monotonic()
    with daemon(Path.cwd() / "takes") as port:
        console.print(f"asking over OSC for: {prompt}")
        path = first_sound(port, prompt)
    console.print(f"from nothing to sound in {time.monotonic() - began:.1f} s; listen to it:")
    print(path)


if __name__ == "__main__":
    main()
