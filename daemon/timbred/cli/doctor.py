"""`timbred doctor` and `timbred devices`: checks of this installation, each with a remedy, and its audio devices."""

import asyncio
import importlib.util
import json
import platform
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape

from timbred import __version__, errors
from timbred.access.policy import access_rules
from timbred.cli.serve import run, running_daemon, settings_from
from timbred.cli.terminal import error_console, show
from timbred.client import DaemonNotFound
from timbred.config import Config
from timbred.ipc.devices import list_cuda_devices, read_places, share_of_machine
from timbred.ipc.isolation import child_environment, python_command, safe_folder, torch_command
from timbred.models.clap import CLAP_NAME, ClapEntry
from timbred.models.registry import build
from timbred.protocol import messages as m
from timbred.storage.database import check_database
from timbred.storage.takes_folder import TakesFolder
from timbred.transports.sockets import is_beyond_loopback

LOW_DISK_BYTES = 500e6
"""Free bytes below which the takes folder's disk counts as nearly full."""

STATUS_TIMEOUT_S = 10.0
"""Seconds after which a running daemon's status counts as unanswered."""

PROBE_TIMEOUT_S = 180.0
"""Seconds for the import of torch, from a cold disk."""


@dataclass(frozen=True)
class Finding:
    """Result of one check. `remedy` is the action to take if it isn't `good`."""

    what: str
    state: Literal["good", "note", "bad"]
    found: str
    remedy: str = ""


def doctor(as_json: bool, file: Path | None, flags: list[str]) -> None:
    """Print all findings; exit with status 1 if timbred can't render."""
    config = settings_from(file, flags)
    with error_console().status("checking"):
        findings = [finding for check in CHECKS for finding in check(config)]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            _print(finding)
    if any(finding.state == "bad" for finding in findings):
        sys.exit(1)


def _print(finding: Finding) -> None:
    """Print a finding, with its remedy in a second line."""
    mark, style = {"good": ("ok", "green"), "note": ("--", "yellow"), "bad": ("NO", "bold red")}[finding.state]
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[{style}]{mark}[/] {escape(finding.what)}: {escape(finding.found)}")
    if finding.remedy and finding.state != "good":
        console.print(f"   -> {escape(finding.remedy)}", style="dim")


def _program(config: Config) -> Iterator[Finding]:
    yield Finding("timbred", "good", f"{__version__}, Python {platform.python_version()}, {platform.system()}")


def _settings(config: Config) -> Iterator[Finding]:
    for warning in config.warnings:
        yield Finding("settings", "note", warning, "docs/settings.md lists the settings and their variables")


def _engines(config: Config) -> Iterator[Finding]:
    """Check where the engines run, and the devices on this machine."""
    try:
        places = read_places(config["engines"], config["device"], list_cuda_devices)
        for place in places:
            share_of_machine(place, places, config["device.threads"], config["engine.memory"])
    except errors.BadRequest as error:
        yield Finding("engines", "bad", str(error), "set engines to auto")
        return
    local = [place.device for place in places if not place.address]
    for address, count in Counter(place.address for place in places if place.address).items():
        yield _cluster(address, count, "note" if local else "bad")
    if len(local) > 1:
        yield Finding("engines", "good", f"{len(local)} on this machine: {', '.join(local)}")
    yield from _devices(list(dict.fromkeys(local)))


def _cluster(address: str, count: int, failed: Literal["note", "bad"]) -> Finding:
    """Check if Ray is installed here, and if something accepts connections at a cluster's address."""
    from timbred.cluster.node import CannotPlace, check_reachable

    what = f"engines at {address}"
    if importlib.util.find_spec("ray") is None:
        return Finding(what, failed, "Ray isn't installed", "install it with: pip install 'timbred[cluster]'")
    try:
        check_reachable(address)
    except CannotPlace as error:
        return Finding(what, failed, str(error), "docs/laptop-and-rack.md has each step")
    return Finding(what, "good", f"{count}; the address accepts connections. timbred engines lists what runs there")


def _devices(names: list[str]) -> Iterator[Finding]:
    """Check devices in a child process that imports torch."""
    if not names:
        return
    command = torch_command("timbred.engine.device", "--device", *names)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=True,
            env=child_environment(), cwd=safe_folder(),
        )  # fmt: skip
        found = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        detail = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        yield Finding("device", "bad", detail[-1] if detail else "the engine can't be started", "reinstall timbred")
        return
    yield from map(_device, found)


def _device(device: dict[str, Any]) -> Finding:
    if "error" in device:
        return Finding("device", "bad", device["error"], "set engines and device to auto")
    total = device["memory_total"] / 1e9
    text = f"{device['device']}: {device['name']}, {device['precision']}, {total:.1f} GB, torch {device['torch']}"
    if device["device"] == "cpu":
        return Finding("device", "note", text, "sufficient for pocket; large models need a GPU")
    return Finding("device", "good", text)


def _sound(config: Config) -> Iterator[Finding]:
    try:
        devices = output_devices()
    except errors.NoAudioDevice as error:
        yield Finding("audio device", "note", str(error), "rendering to files works without one")
        return
    name = str(config["player.device"])
    matching = [device for device in devices if name.lower() in device["name"].lower() or name == str(device["number"])]
    chosen = next((device for device in matching if name or device["is_default"]), None)
    if chosen is not None:
        yield Finding("audio device", "good", f"{chosen['name']}, {chosen['rate']} Hz, {chosen['channels']} channels")
    else:
        missing = f"no device is called {name!r}" if name and devices else "no device that can play"
        yield Finding("audio device", "note", missing, "timbred devices lists them; files work without one")


def _ports(config: Config) -> Iterator[Finding]:
    try:
        answered = run(_status(config))
    except TimeoutError:
        yield Finding("daemon", "bad", "one is running but doesn't answer", "check its log; restart it")
        return
    except errors.AccessDenied as error:
        yield Finding("daemon", "bad", "one is running, and refuses this user", str(error))
        return
    if answered is not None:
        yield Finding("daemon", "good", f"one is running at {config['host']}:{config['zmq.requests']}")
        yield from _processes(*answered)
        return
    yield Finding("daemon", "note", "none is running", "start it with: timbred serve")
    for name in ("osc.port", "zmq.requests", "zmq.events", "http.port"):
        yield _port(config, name)


def _process(name: str, state: m.ProcessState, trouble: str, failed: Literal["note", "bad"]) -> Finding:
    if state == "failed":
        return Finding(f"running {name}", failed, f"it can't be started: {trouble}", "timbred retries automatically")
    return Finding(f"running {name}", "good" if state == "up" else "note", state, "wait until it is ready")


async def _status(config: Config) -> tuple[m.StatusReply, list[m.Engine]] | None:
    """Return the running daemon's status and its engines; None if there is none."""
    async with running_daemon(config) as daemon:
        if daemon is None:
            return None
        async with asyncio.timeout(STATUS_TIMEOUT_S):
            return await daemon.status(), await daemon.engines()


def _processes(status: m.StatusReply, engines: list[m.Engine]) -> Iterator[Finding]:
    """Check the running daemon's engines, player and background tasks."""
    yield _process("engine", status.engine, status.engine_trouble, "bad")
    for engine in engines if len(engines) > 1 else ():
        where = f"{engine.device} ({engine.name})" if engine.where == "local" else f"{engine.device} at {engine.where}"
        yield _process(f"engine {engine.number} on {where}", engine.state, engine.trouble, "note")
    yield _process("player", status.player, status.player_trouble, "note")
    if status.denied:
        refused = f"refused attempts ({errors.AccessDenied.code}): {status.denied}"
        yield Finding("access so far", "note", refused, "the daemon's log names each source once")
    if status.faults:
        yield Finding("background tasks", "note", status.faults, "the daemon's log has the details; please report it")


def _access(config: Config) -> Iterator[Finding]:
    """Report which of the ports is open to whom."""
    host = config["host"]
    try:
        if not is_beyond_loopback(host):
            yield Finding("access", "good", f"all ports are open to programs on this machine only ({host})")
            return
        if config["access.open"]:
            everybody = f"all ports are open to everybody who can reach {host}, and nothing is encrypted (access.open)"
            yield Finding("access", "note", everybody, "timbred keys make, then --set access.open=false")
            return
        rules = access_rules(config)
    except errors.TimbredError as error:
        yield Finding("access", "bad", str(error), "docs/access.md shows it step by step")
        return
    names = ", ".join(rules.trusted.names) or "no other key yet"
    yield Finding("access to ZeroMQ", "good", f"{host}, encrypted, for this user and the keys of: {names}")
    where = "the setting access.token" if config["access.token"] else "the folder of keys"
    unencrypted = f"{host}, not encrypted, for programs and browsers with the token in {where}"
    yield Finding("access to HTTP", "good", unencrypted)
    allowed = ", ".join(map(str, rules.allow.networks))
    if any(network.prefixlen == 0 for network in rules.allow.networks):
        yield Finding("access to OSC", "note", f"{host}, for everybody ({allowed})", "list addresses in access.allow")
    else:
        yield Finding("access to OSC", "good", f"{host}, not encrypted, for this machine and {allowed}")


def _port(config: Config, name: str) -> Finding:
    kinds = [socket.SOCK_STREAM, socket.SOCK_DGRAM] if name == "osc.port" else [socket.SOCK_STREAM]
    for kind in kinds:
        with socket.socket(socket.AF_INET6 if ":" in config["host"] else socket.AF_INET, kind) as probe:
            if sys.platform != "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
            try:
                probe.bind((config["host"], config[name]))
            except OSError as error:
                return Finding(name, "bad", f"{config[name]} can't be bound: {error.strerror}", f"--set {name}=0")
    return Finding(name, "good", f"{config[name]} is free")


def _folders(config: Config) -> Iterator[Finding]:
    try:
        folder = TakesFolder(config.takes_folder)
        folder.check()
    except errors.TimbredError as error:
        yield Finding("takes.folder", "bad", str(error), "--set takes.folder=FOLDER")
        return
    free = shutil.disk_usage(folder.root).free
    text = f"{folder.root}, {free / 1e9:.1f} GB free"
    yield (
        Finding("takes.folder", "good", text)
        if free > LOW_DISK_BYTES
        else Finding("takes.folder", "note", text, "the disk is nearly full")
    )
    try:
        check_database(config.library_file)
        yield Finding("library", "good", str(config.library_file))
    except errors.TimbredError as error:
        yield Finding("library", "bad", str(error), "--set library.file=FILE")


def _models(config: Config) -> Iterator[Finding]:
    registry = build(config.models_folder, config.sources)
    for entry in registry.entries.values():
        name = entry.card.name
        default = name == config["models.default"]
        what = f"model {name}" + (" (default)" if default else "")
        try:
            checkpoint = entry.checkpoint()
            yield Finding(what, "good", f"{checkpoint.weight_bytes / 1e6:.0f} MB, {checkpoint.sound.rate} Hz")
        except errors.TimbredError as error:
            is_needed = default or name in config.sources
            message = str(error) if is_needed else "not downloaded"
            yield Finding(what, "bad" if is_needed else "note", message, entry.remedy)
    if registry.clap is not None:
        yield _clap(registry.clap)


def _clap(entry: ClapEntry) -> Finding:
    what = f"component {CLAP_NAME}"
    try:
        inspected = entry.inspect()
    except errors.TimbredError as error:
        absent = "not downloaded: takes are ranked only where their model has a CLAP of its own"
        return Finding(what, "note", str(error) if entry.folder.exists() else absent, entry.remedy)
    return Finding(what, "good", f"{inspected.weight_bytes / 1e6:.0f} MB, ranks takes and finds similar ones")


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    _program,
    _settings,
    _engines,
    _sound,
    _access,
    _ports,
    _folders,
    _models,
)
"""All checks, in order."""

DEVICE_COLUMNS = {"number": "number", "name": "name", "driver": "driver", "channels": "channels", "rate": "Hz",
           "is_default": "default"}  # fmt: skip

LISTING_TIMEOUT_S = 30.0
"""Seconds after which the audio system counts as blocked."""


ENGINE_COLUMNS = {"number": "number", "where": "where", "device": "device", "state": "state", "models": "models",
                  "memory_used": "MB used", "memory_total": "MB", "jobs": "jobs", "trouble": "remark"}  # fmt: skip


def engines(as_json: bool, file: Path | None, flags: list[str]) -> None:
    """Print the engines of the running daemon.

    Raises:
        DaemonNotFound: None is running.
    """
    config = settings_from(file, flags)
    try:
        answered = run(_status(config))
    except TimeoutError:
        raise errors.Internal("the running daemon doesn't answer: check its log, and restart it") from None
    if answered is None:
        raise DaemonNotFound("no daemon is running; start one with: timbred serve")
    rows = [{name: getattr(engine, name) for name in engine.__struct_fields__} for engine in answered[1]]
    show(rows, ENGINE_COLUMNS, as_json, "no engines")


def devices(as_json: bool) -> None:
    """Print the output devices; `player.device` accepts a number or a part of a name.

    Raises:
        NoAudioDevice: The audio library is missing; the message has the remedy.
    """
    show(output_devices(), DEVICE_COLUMNS, as_json, "no audio output device: connect one, or start a JACK server")


def output_devices() -> list[dict[str, Any]]:
    """List the output devices, in a child process that loads the audio library.

    Raises:
        NoAudioDevice: The library is missing, or doesn't answer.
    """
    command = python_command("timbred.player.process.devices")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LISTING_TIMEOUT_S, check=True,
            env=child_environment(), cwd=safe_folder(),
        )  # fmt: skip
        listing = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        raise errors.NoAudioDevice(f"the audio system doesn't answer: {error}") from error
    if "error" in listing:
        raise errors.NoAudioDevice(listing["error"])
    return listing["devices"]
