"""Places of engines: the setting `engines`, and the CUDA devices of this machine, counted without torch.

python -P -m timbred.ipc.devices prints the names of the CUDA devices as JSON.
"""

import ctypes
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from timbred.errors import BadRequest
from timbred.ipc.isolation import child_environment, python_command, safe_folder

AUTO = "auto"

MAX_ENGINES = 64
"""Engines of one daemon at most."""

MIN_BYTES_PER_CPU_ENGINE = 1_000_000_000
"""Memory that an engine on the CPU takes with a small model: half of it are its libraries."""

CPU_MODEL_SHARE = 0.8
"""Part of the memory that the models of all engines on the CPU may fill where `engine.memory` is 0."""

DEVICE_LISTING_TIMEOUT_S = 20.0
"""Seconds after which the CUDA driver counts as blocked; the first call may have to load it."""

_DEVICE = re.compile(r"cpu|mps|cuda:\d{1,3}")
_RAY_ADDRESS = re.compile(r"ray://(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")
_TORCH_CUDA = re.compile(r"^cuda\b[^=\n]*=\s*['\"]", re.MULTILINE)

EXAMPLES = "`auto`, devices such as `cuda:0 cuda:1` or `cpu cpu`, or `ray://HOST:PORT 2`"


@dataclass(frozen=True)
class EnginePlace:
    """Place of one engine.

    Attributes:
        number: Its number among the daemon's engines, from 1.
        device: Its device, as in the setting `device`: `auto`, `cpu`, `cuda:0`, `mps`.
        address: Address of the Ray cluster that it runs on, as `ray://HOST:PORT`; empty on this machine.
        index: Its index among the engines at the same address, from 0.
    """

    number: int = 1
    device: str = AUTO
    address: str = ""
    index: int = 0


def read_places(
    engines: str, device: str = AUTO, list_cuda: Callable[[], Sequence[str]] = lambda: ()
) -> tuple[EnginePlace, ...]:
    """Return where the engines of the settings `engines` and `device` run.

    >>> [place.device for place in read_places("cpu cpu")]
    ['cpu', 'cpu']
    >>> [place.index for place in read_places("ray://rack:10001 2")]
    [0, 1]

    Args:
        engines: The setting `engines`.
        device: The setting `device`.
        list_cuda: Returns the names of this machine's CUDA devices; called only where both settings are `auto`.

    Raises:
        BadRequest: They contradict each other, or `engines` can't be read.
    """
    words = engines.replace(",", " ").split()
    if not words:
        raise BadRequest(f"setting engines: the list is empty; allowed are {EXAMPLES}")
    if words == [AUTO]:
        count = len(list_cuda()) if device == AUTO else 0
        devices = [f"cuda:{index}" for index in range(count)] if count > 1 else [device]
        return tuple(EnginePlace(number, name) for number, name in enumerate(devices[:MAX_ENGINES], 1))
    if device != AUTO:
        raise BadRequest(f"setting device: {device!r} and engines: {engines!r} are both set; remove the setting device")
    places = _read_words(words)
    if len(places) > MAX_ENGINES:
        raise BadRequest(f"setting engines: it names {len(places)} engines, allowed are up to {MAX_ENGINES}")
    counts = Counter(place.device for place in places if place.device.startswith(("cuda", "mps")))
    for name, count in counts.items():
        if count > 1:
            raise BadRequest(
                f"setting engines: {name} is named {count} times, but one engine uses all of it; name it once "
                "(only cpu may be named several times)"
            )
    return tuple(replace(place, number=number) for number, place in enumerate(places, 1))


def _read_words(words: list[str]) -> list[EnginePlace]:
    places: list[EnginePlace] = []
    rest = iter(words)
    for word in rest:
        if word.startswith("ray:"):
            places += _read_cluster(word, next(rest, ""), places)
        elif _DEVICE.fullmatch(word):
            places.append(EnginePlace(device=word))
        elif word == AUTO:
            raise BadRequest("setting engines: auto stands alone; remove the other words, or name each device")
        else:
            hint = "; write cuda:0" if word in ("cuda", "gpu") else ""
            raise BadRequest(f"setting engines: {word[:100]!r} is no device{hint}; allowed are {EXAMPLES}")
    return places


def _read_cluster(address: str, count: str, before: Sequence[EnginePlace]) -> list[EnginePlace]:
    """Return the places at a Ray cluster's address.

    Raises:
        BadRequest: The address or the number of engines can't be read, or the address comes twice.
    """
    match = _RAY_ADDRESS.fullmatch(address)
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise BadRequest(
            f"setting engines: {address[:100]!r} is no address of a Ray cluster; write ray://HOST:PORT, for example "
            "ray://192.168.1.20:10001"
        )
    if not re.fullmatch(r"[0-9]{1,4}", count) or not 1 <= int(count) <= MAX_ENGINES:
        raise BadRequest(
            f"setting engines: the number of engines at {address} is {count[:100]!r}; write a number from 1 to "
            f"{MAX_ENGINES}, as in `{address} 2`"
        )
    if any(place.address == address for place in before):
        raise BadRequest(f"setting engines: {address} is named twice; name it once, with the number of its engines")
    return [EnginePlace(address=address, index=index) for index in range(int(count))]


@dataclass(frozen=True)
class EngineShare:
    """Limits of one engine: CPU threads (0: one for each core), and MB of memory for models (0: most of it)."""

    threads: int = 0
    memory_mb: float = 0.0


def share_of(
    place: EnginePlace, places: Sequence[EnginePlace], threads: int, memory_mb: float, cores: int, total_bytes: int
) -> EngineShare:
    """Return what one of several engines may use: those on the CPU of this machine share its cores and its memory.

    Args:
        place: The engine's place.
        places: All engines' places.
        threads: The setting `device.threads`.
        memory_mb: The setting `engine.memory`.
        cores: Cores of this machine.
        total_bytes: Memory of this machine.

    Raises:
        BadRequest: This machine has too little memory for all of them.
    """
    count = sum(other.device == "cpu" for other in places)
    if place.device != "cpu" or count < 2:
        return EngineShare(threads, memory_mb)
    needed_mb = memory_mb or MIN_BYTES_PER_CPU_ENGINE / 1e6
    if count * needed_mb * 1e6 > total_bytes:
        fitting = int(total_bytes // (needed_mb * 1e6))
        reason = "engine.memory" if memory_mb else "an engine"
        raise BadRequest(
            f"setting engines: {count} engines on the CPU take {count * needed_mb:.0f} MB ({reason}: {needed_mb:.0f} MB"
            f" each), and this machine has {total_bytes / 1e6:.0f} MB; name cpu at most {max(1, fitting)} times"
            + (", or lower engine.memory" if memory_mb else "")
        )
    return EngineShare(threads or max(1, cores // count), memory_mb or CPU_MODEL_SHARE * total_bytes / 1e6 / count)


def share_of_machine(place: EnginePlace, places: Sequence[EnginePlace], threads: int, memory_mb: float) -> EngineShare:
    """Return `share_of` for the cores and the memory of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return share_of(place, places, threads, memory_mb, cores, psutil.virtual_memory().total)


def list_cuda_devices() -> list[str]:
    """Return the names of the CUDA devices that engines can use, in their order; asks the driver in a child process.

    Without a driver no process is started.
    """
    if not _has_driver():
        return []
    try:
        done = subprocess.run(
            python_command("timbred.ipc.devices"), capture_output=True, text=True, timeout=DEVICE_LISTING_TIMEOUT_S,
            check=True, env=child_environment(), cwd=safe_folder(),
        )  # fmt: skip
        return [str(name) for name in json.loads(done.stdout)]
    except (subprocess.SubprocessError, OSError, ValueError):
        return []


def _has_driver() -> bool:
    """Tell if there may be a CUDA driver: NVIDIA's device files, WSL's, or Windows' library."""
    if sys.platform == "win32":
        return (Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "nvcuda.dll").exists()
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()


def query_driver() -> list[str]:
    """Return the names of the CUDA devices by the driver's library, which respects CUDA_VISIBLE_DEVICES.

    Source: CUDA Driver API, cuDeviceGetCount and cuDeviceGetName.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    names: list[str] = []
    for index in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
        if driver.cuDeviceGet(ctypes.byref(device), index) or driver.cuDeviceGetName(name, 256, device):
            return []
        names.append(name.value.decode("utf-8", "replace"))
    return names


def torch_uses_cuda() -> bool:
    """Tell if the installed torch was built for CUDA, by its version file: importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return False
    try:
        text = (Path(spec.origin).parent / "version.py").read_text("utf-8")
    except OSError:
        return False
    return _TORCH_CUDA.search(text) is not None


if __name__ == "__main__":
    json.dump(query_driver() if torch_uses_cuda() else [], sys.stdout)
