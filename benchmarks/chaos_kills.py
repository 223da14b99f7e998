"""Chaos parts: engines, players and daemons killed or paused at random moments."""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from pathlib import Path

import psutil
import soundfile

from benchmarks.chaos_stage import (
    ENGINE_READY_PATTERN,
    PLAYER_READY_PATTERN,
    ChaosDaemon,
    CountingClient,
    Outcome,
    Reporter,
    Sizes,
    await_line,
    chaos_daemon,
    wait_for_exit,
)
from benchmarks.jack import jack_server

ORPHAN_TIMEOUT_S = 10.0
"""Seconds in which the children of a killed daemon must exit."""

MAX_KILL_DELAY_S = 1.5
"""Longest delay from a request to the kill: longer than the rendering of a short sound."""


def engine_kills(sizes: Sizes, report: Reporter) -> list[Outcome]:
    """Kill the engine at random moments; each request has one end, and later requests succeed."""
    ends = Outcome("engine killed: one terminal event for each request")
    back = Outcome("engine killed: later requests succeed")
    chance = random.Random(sizes.seed)
    with chaos_daemon("player.device=none") as daemon:
        client = CountingClient(daemon.ports)
        client.send("generate", id="first", prompt="kick", seconds=0.5, steps=4)
        back.check(client.until_end("first") is not None, "no sound at first")
        for number in range(sizes.scaled_count(64)):
            _one_engine_kill(daemon, client, chance, number, back)
        client.wait_for_ends()
        client.check_ends(ends)
        report(f"    ends: {dict(client.end_types)}")
        client.close()
    return [ends, back]


def _one_engine_kill(
    daemon: ChaosDaemon, client: CountingClient, chance: random.Random, number: int, back: Outcome
) -> None:
    names = [f"k{number}-{index}" for index in range(2)]
    for name in names:
        client.send("generate", id=name, prompt="snare", seconds=0.5, steps=chance.choice((4, 20, 60)))
    client.listen(chance.uniform(0.0, MAX_KILL_DELAY_S))
    for name in names:
        if chance.random() < 0.25:
            client.send("cancel", id=name)
    with contextlib.suppress(ProcessLookupError):  # it may be restarting
        os.kill(daemon.engine(), signal.SIGKILL)
    killed = time.monotonic()
    if chance.random() < 0.25:
        client.send("cancel", id=chance.choice(names))
    if chance.random() < 0.5:
        client.send("vary", id=f"v{number}", take=client.takes[-1]["take_id"], seed=number, steps=4)
    end = None
    for attempt in range(3):  # a request whose engine is lost twice fails
        name = f"s{number}-{attempt}"
        client.send("generate", id=name, prompt="kick", seconds=0.5, steps=4, priority="live")
        end = client.until_end(name)
        if end is not None and end["type"] == "done":
            back.recovery_s.append(time.monotonic() - killed)
            back.check(True, "")
            return
    back.check(False, f"no sound within {time.monotonic() - killed:.0f} s of kill {number}: {end}")


def player_kills(sizes: Sizes, report: Reporter) -> list[Outcome]:
    """Kill the player while a voice plays; the device is reopened, and the voice continues."""
    back = Outcome("player killed: the device is reopened, the voice continues")
    ends = Outcome("player killed: one end for each play")
    if not (shutil.which("jackd") and shutil.which("jack_wait")):
        back.skipped = ends.skipped = "needs jackd and jack_wait (Debian: jackd2)"
        return [back, ends]
    chance = random.Random(sizes.seed)
    with contextlib.ExitStack() as stack:
        stack.enter_context(jack_server(256, "timbred-chaos"))
        daemon = stack.enter_context(chaos_daemon())
        client = CountingClient(daemon.ports)
        stack.callback(client.close)
        client.send("generate", id="first", prompt="drone", seconds=2.0, steps=4, loop=True)
        client.until_end("first")
        client.send("play", voice=1, take=client.takes[-1]["take_id"], loop=True, gain=-30.0)
        client.until(lambda event: event["type"] == "playing")
        for number in range(sizes.scaled_count(64)):
            _one_player_kill(daemon, client, chance, number, back, ends)
    report(f"    {len(back.recovery_s)} times the device was reopened")
    return [back, ends]


def _one_player_kill(
    daemon: ChaosDaemon, client: CountingClient, chance: random.Random, number: int, back: Outcome, ends: Outcome
) -> None:
    voice = 2 + number % 8
    client.send("play", voice=voice, take=client.takes[-1]["take_id"], loop=True, gain=-30.0)
    client.until(lambda event: event["type"] in ("playing", "fail"))
    client.listen(chance.uniform(0.0, 1.0))
    opened = daemon.ready_count(PLAYER_READY_PATTERN)
    daemon.player().kill()
    killed = time.monotonic()
    client.send("stop", voice=voice)
    reopened = await_line(daemon, PLAYER_READY_PATTERN, opened + 1)
    if reopened:
        back.recovery_s.append(time.monotonic() - killed)
    end_event = client.until(lambda event: event["type"] == "ended" and event["voice"] == voice, 30.0)
    ends.check(end_event is not None, f"voice {voice} never ended after kill {number}")
    client.send("status")
    status = client.until(lambda event: event["type"] == "status.reply", 30.0)
    sounding = status is not None and status["voices_playing"] == 1
    back.check(reopened and sounding, f"kill {number}: reopened {reopened}, {status}")


def daemon_kills(sizes: Sizes, report: Reporter) -> list[Outcome]:
    """Kill the daemon at random moments; no file is incomplete, no reported take is lost, no temporary file remains."""
    orphans = Outcome("daemon killed: its engine and player exit too")
    takes_outcome = Outcome("daemon killed: no take is lost, no file is incomplete")
    cleanup_outcome = Outcome("daemon killed: its temporary folders are removed at the next start")
    chance = random.Random(sizes.seed)
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = Path(temporary)
        reported_takes: dict[str, str] = {}
        for number in range(sizes.scaled_count(64)):
            daemon = ChaosDaemon(folder, "player.device=none")
            _check_cleanup(daemon, number, cleanup_outcome)
            client = CountingClient(daemon.ports)
            for index in range(3):
                client.send("generate", id=f"d{number}-{index}", prompt="kick", seconds=0.5, steps=4, preview=True)
            if number % 2:
                client.until(lambda event: event["type"] == "take")
            client.listen(chance.uniform(0.0, 2 * MAX_KILL_DELAY_S))
            family = daemon.processes()
            daemon.process.kill()
            reported_takes |= {take["take_id"]: take["path"] for take in client.takes}
            client.close()
            orphans.check(wait_for_exit(family[1:], ORPHAN_TIMEOUT_S), f"kill {number}: still running: {family[1:]}")
            daemon.kill()
            _check_takes(folder / "takes", reported_takes, number, takes_outcome)
        report(f"    {len(reported_takes)} takes were reported")
        daemon = ChaosDaemon(folder, "player.device=none")
        _check_cleanup(daemon, sizes.scaled_count(64), cleanup_outcome)
        daemon.stop()
        remaining = sorted(path.name for path in daemon.temporary.glob("timbred*"))
        cleanup_outcome.check(not remaining, f"not removed after the exit: {remaining}")
    return [orphans, takes_outcome, cleanup_outcome]


def _check_cleanup(daemon: ChaosDaemon, number: int, outcome: Outcome) -> None:
    """Check that the temporary folder of a ready daemon contains nothing older than the daemon."""
    started_at = daemon.process_info.create_time() - 1.0
    old: list[str] = []
    for path in daemon.temporary.glob("timbred*"):  # torch's folder there has another name
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < started_at:
                old.append(path.name)
    previews = daemon.takes / "previews"
    if previews.is_dir():
        old += [path.name for path in previews.iterdir() if path.stat().st_mtime < started_at]
    outcome.check(not old, f"start {number}: not removed after a kill: {old}")


def _check_takes(takes: Path, reported_takes: dict[str, str], number: int, outcome: Outcome) -> None:
    """Check that every reported take is in the library with a complete file."""
    faults: list[str] = []
    for path in takes.rglob("*.wav") if takes.is_dir() else ():
        if path.name.startswith("."):
            continue
        try:
            if soundfile.info(path).frames == 0:
                faults.append(f"{path.name} is empty")
        except soundfile.LibsndfileError as error:
            faults.append(f"{path.name}: {error}")
    libraries = list(takes.rglob("*.sqlite")) if takes.is_dir() else []
    rows: set[str] = set()
    for library in libraries:
        with contextlib.closing(sqlite3.connect(f"file:{library}?mode=ro", uri=True)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            if "takes" in tables:  # otherwise the daemon was killed before it created them
                rows |= {row[0] for row in connection.execute("SELECT take_id FROM takes")}
    faults += [f"take {take} isn't in the library" for take in reported_takes if take not in rows]
    faults += [f"take {take} has no file" for take, path in reported_takes.items() if not Path(path).is_file()]
    outcome.check(not faults, f"kill {number}: " + "; ".join(faults[:5]))


def pauses(sizes: Sizes, report: Reporter) -> list[Outcome]:
    """Suspend the daemon and its children for a while, as a closed lid does; no process is restarted."""
    whole = Outcome("all processes paused: none is restarted, requests continue")
    part = Outcome("engine paused for a shorter time: its request continues")
    with chaos_daemon("player.device=none") as daemon:
        client = CountingClient(daemon.ports)
        client.send("generate", id="first", prompt="kick", seconds=0.5, steps=4)
        client.until_end("first")
        for number in range(2):
            name, engines = f"p{number}", daemon.ready_count(ENGINE_READY_PATTERN)
            client.send("generate", id=name, prompt="pad", seconds=2.0, steps=100)
            client.until(lambda event: event["type"] == "progress")
            frozen, seconds = (daemon.processes(), sizes.pause_s) if number == 0 else (_engines(daemon), 10.0)
            for process in frozen:
                with contextlib.suppress(psutil.NoSuchProcess):  # a child may end meanwhile; engines are counted below
                    process.suspend()
            time.sleep(min(seconds, sizes.pause_s))
            for process in frozen:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()
            end = client.until_end(name)
            is_done = end is not None and end["type"] == "done"
            same = daemon.ready_count(ENGINE_READY_PATTERN) == engines
            (part if number else whole).check(
                is_done and same, f"{seconds:g} s: ended with {end}, {'no' if same else 'a'} new engine"
            )
        client.close()
    report(f"    paused for {sizes.pause_s:g} s")
    return [whole, part]


def _engines(daemon: ChaosDaemon) -> list[psutil.Process]:
    return [psutil.Process(daemon.engine())]
