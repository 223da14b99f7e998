"""The programs that tests of the bridges need, the packages that have them, and what happens when one is missing."""

import ctypes.util
import importlib.util
import os
import shutil
from dataclasses import dataclass
from typing import NoReturn

import pytest

HIDDEN = "BARE_MACHINE"
"""Environment variable that `tests.bare_machine` sets to 1: hosts are hidden on purpose, CI too skips their tests."""

HOST_MODULES = frozenset({"rtmixer", "sounddevice"})
"""Python modules whose import fails without PortAudio. No test module may import them at its top level."""


@dataclass(frozen=True)
class Package:
    """Packages to install: `debian` is the package's name for apt, `brew` the words after `brew install`.

    `brew` is empty where macOS has no such program.
    """

    debian: str
    brew: str = ""

    @property
    def remedy(self) -> str:
        """The commands that install it."""
        return f"apt install {self.debian}" + (f"; macOS: brew install {self.brew}" if self.brew else "")


PORTAUDIO = Package("libportaudio2", "portaudio")
"""The library that sounddevice and rtmixer load. Their wheels for macOS and Windows contain it."""

PROGRAMS = {
    "c++": Package("g++", "gcc"),
    "chromium": Package("chromium", "--cask chromium"),
    "ip": Package("iproute2"),
    "jack_capture": Package("jack-capture"),
    "jack_wait": Package("jackd2", "jack"),
    "jackd": Package("jackd2", "jack"),
    "node": Package("nodejs", "node"),
    "npm": Package("npm", "node"),
    "oscdump": Package("liblo-tools", "liblo"),
    "oscsend": Package("liblo-tools", "liblo"),
    "pd": Package("puredata-core", "--cask pd"),
    "sclang": Package("supercollider-language", "--cask supercollider"),
    "scsynth": Package("supercollider-server", "--cask supercollider"),
    "unshare": Package("util-linux"),
}
"""Each program that a test asks for."""

OTHER_NAMES = {"chromium": ("chromium-browser", "google-chrome")}
"""Programs that serve in place of another."""


def absent(reason: str) -> NoReturn:
    """End a test whose host is missing: skipped for a user, failed in CI, skipped where hosts are hidden on purpose."""
    if os.environ.get("CI") == "true" and os.environ.get(HIDDEN) != "1":
        pytest.fail(reason)
    pytest.skip(reason)


def find_program(name: str) -> str | None:
    """The path of a program of `PROGRAMS`, or of one that serves in its place."""
    return next(filter(None, map(shutil.which, (name, *OTHER_NAMES.get(name, ())))), None)


def require_portaudio() -> None:
    """End the test where there is no PortAudio, with what to install."""
    inside_wheel = importlib.util.find_spec("_sounddevice_data") is not None
    if not inside_wheel and ctypes.util.find_library("portaudio") is None:
        absent(f"PortAudio isn't installed: {PORTAUDIO.remedy}")


def require_program(name: str) -> str:
    """The path of a program of `PROGRAMS`; ends the test where it isn't installed, with what to install."""
    package = PROGRAMS[name]
    return find_program(name) or absent(f"{name} isn't installed: {package.remedy}")
