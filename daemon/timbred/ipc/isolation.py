"""Prevention of imports from the working folder.

A performer may start timbred anywhere: in a folder of exercises that has a `random.py`, in a download folder, or in a
folder that has been deleted since. Neither the daemon nor any process that it starts may import modules from it.

This module imports only modules that are loaded at Python's start, because it runs before everything else.
"""

import os
import sys


def forget_working_folder(package_folder: str) -> None:
    """Remove the entries of `sys.path` that refer to the working folder.

    `python -m` puts it first, and an empty part of PYTHONPATH (`PYTHONPATH=$PYTHONPATH:/opt/x`) refers to it too.

    Args:
        package_folder: The folder that contains the package `timbred`. It is kept, so that a checkout can run in place.
    """
    working_folder = _working_folder()
    named = {
        os.path.abspath(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(part)
    }
    sys.path[:] = [part for part in sys.path if part not in ("", working_folder) or part in (package_folder, *named)]


def python_command(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line that runs a module of the package in a new interpreter.

    Start it with `child_environment` in `safe_folder`.
    """
    return (sys.executable, "-P", "-m", module, *arguments)


TORCH_PROGRAM_VARIABLE = "TIMBRED_TEST_TORCH_PROGRAM"
"""Environment variable for tests: a command that is followed by the module to run, its parts divided by newlines."""


def torch_command(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line that runs a module that imports torch.

    It is `python_command`, unless tests have another program that runs modules without the delay of this import.
    """
    program = os.environ.get(TORCH_PROGRAM_VARIABLE)
    return (*program.split("\n"), module, *arguments) if program else python_command(module, *arguments)


def child_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with `variables` and without the working folder in PYTHONPATH."""
    environment = {**os.environ, **variables, "PYTHONSAFEPATH": "1"}
    parts = environment.pop("PYTHONPATH", "").split(os.pathsep)
    working_folder = _working_folder()
    absolute = [part if os.path.isabs(part) else os.path.join(working_folder, part) for part in parts if part]
    if absolute:
        environment["PYTHONPATH"] = os.pathsep.join(part for part in absolute if os.path.isabs(part))
    return environment


def safe_folder() -> str:
    """Return the working folder for new processes: the interpreter's, which contains no other modules."""
    return sys.prefix


def _working_folder() -> str:
    """Return the working folder's path; empty if it has been deleted."""
    try:
        return os.getcwd()
    except OSError:
        return ""
