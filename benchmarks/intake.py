"""OSC intake: requests per second that are received and answered, idle and while a sound is being rendered.

Goal: none lost, 10,000 a second, and at least 0.9 of the idle rate while generating. A sender in a process of its own
sends bursts of `/timbred/sync` numbers; every one must come back.
"""

import socket
import subprocess
import sys
import time

from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

from benchmarks.daemon import Client, daemon
from benchmarks.machine import machine

BURST_SIZE = 2_000
BURST_COUNT = 10
ANSWER_TIMEOUT_S = 20.0
"""Seconds without an answer after which missing answers count as lost."""


def send(port: int) -> tuple[int, float]:
    """Send bursts, each after the answers to the previous one; returns the answered requests and the seconds."""
    line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 25)
    line.settimeout(ANSWER_TIMEOUT_S)
    line.connect(("127.0.0.1", port))
    datagrams = [_sync(number) for number in range(BURST_SIZE)]
    answered_count = 0
    started_at = time.perf_counter()
    for _ in range(BURST_COUNT):
        for datagram in datagrams:
            line.send(datagram)
        answered_count += _answers(line)
    return answered_count, time.perf_counter() - started_at


def _sync(number: int) -> bytes:
    builder = OscMessageBuilder("/timbred/sync")
    builder.add_arg(number)
    return builder.build().dgram


def _answers(line: socket.socket) -> int:
    """Return the number of answers to one burst that arrived in order."""
    expected = 0
    while expected < BURST_SIZE:
        try:
            answer = line.recv(8192)
        except TimeoutError:
            break
        expected += int(expected % 100 != 0 or OscMessage(answer).params[0] == expected)
    return expected


def measure(client: Client) -> tuple[int, float]:
    """Return the answers and the rate of a sender in a separate process."""
    command = [sys.executable, "-m", "benchmarks.intake", str(client.osc)]
    answered, seconds = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(answered), BURST_SIZE * BURST_COUNT / float(seconds)


def main() -> None:
    """Print the table."""
    with daemon("device.threads=1") as client:
        idle_answered, idle = measure(client)
        for number in range(40):
            client.send("generate", id=f"busy-{number}", prompt="a long dark drone", seconds=5, steps=100)
        client.until("progress")
        busy_answered, generating = measure(client)
        client.send("cancel", id="*")
    sent = BURST_SIZE * BURST_COUNT
    print(f"OSC requests taken in and answered, {sent} sent; {machine()}")
    print(f"  idle         {idle:8.0f} a second, {sent - idle_answered} lost")
    print(f"  generating   {generating:8.0f} a second, {sent - busy_answered} lost")
    print(f"  ratio        {generating / idle:8.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(*send(int(sys.argv[1])))
    else:
        main()
