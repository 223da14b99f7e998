"""The words of a command line after `timbred say`: the prompt, and `--key value` as `generate` names them."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from timbred.audiofile.reader import read_recipe
from timbred.cli.connection import CliConnection, any_daemon
from timbred.cli.serve import run, settings_from, start_logging
from timbred.cli.terminal import error_console
from timbred.config import Config
from timbred.errors import BadRequest, TimbredError, from_code, from_foreign
from timbred.filenames import name_fault, printable
from timbred.ipc.socket_folder import atomic_write
from timbred.protocol import inline_keys
from timbred.protocol import messages as m
from timbred.protocol.coercion import build, describe_type, fields_of, is_key
from timbred.protocol.json import WORD_FIELDS
from timbred.protocol.messages import Generate
from timbred.protocol.schema import REQUEST_NAMED
from timbred.render_settings import CONTAINERS
from timbred.storage.recipe import overlay, parameters_of
from timbred.storage.takes_folder import publish

YES_AND_NO = ("0", "1", "true", "false", "yes", "no", "on", "off")


def prompt_and_parameters(arguments: list[str], switches: frozenset[str]) -> tuple[str, dict[str, Any]]:
    """The prompt (empty when there is none) and the parameters. A switch needs no value.

    >>> prompt_and_parameters(["a bell", "--seed", "7", "--fade-out=0.1", "--loop"], frozenset({"loop"}))
    ('a bell', {'seed': '7', 'fade_out': '0.1', 'loop': '1'})

    Raises:
        BadRequest: a second prompt, or a parameter without a value.
    """
    prompt: str | None = None
    parameters: dict[str, Any] = {}
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word.startswith("--") and word != "--":
            key, equals, value = word[2:].partition("=")
            key = key.replace("-", "_")
            parameters[key] = value if equals else _value(key, waiting, switches)
        elif prompt is None and word != "--":
            prompt = word
        elif word != "--":
            raise BadRequest(f"{word!r}: put the prompt in quotes, and write parameters as --key value")
    return prompt or "", parameters


def _value(key: str, waiting: list[str], switches: frozenset[str]) -> str:
    follows = waiting[0] if waiting else None
    if key in switches:
        return waiting.pop(0) if follows is not None and follows.lower() in YES_AND_NO else "1"
    if follows is None or follows.startswith("--"):
        raise BadRequest(f"--{key.replace('_', '-')}: it needs a value")
    return waiting.pop(0)


def check_target(out: Path, overwrite: bool) -> None:
    """See that the file may be written, before the sound is made.

    Raises:
        BadRequest: its name isn't one on every system, it is there already, or it is a folder.
    """
    shown = printable(str(out))
    if fault := name_fault(out.name):
        raise BadRequest(f"--out {shown}: {fault}; give the file another name")
    if out.is_dir():
        raise BadRequest(f"--out {shown}: that is a folder; name a file")
    if not overwrite and os.path.lexists(out):
        raise _taken(out)


def copy_whole(path: Path, out: Path, overwrite: bool) -> Path:
    """Copy the file under a hidden name and rename it; the absolute path of the copy.

    Raises:
        BadRequest: there is such a file by now.
        TimbredError: it can't be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(out, os.replace if overwrite else _rename_to_free_name) as hidden:
            shutil.copyfile(path, hidden)
            hidden.chmod(path.stat().st_mode & 0o777)
        return out.absolute()
    except FileExistsError as error:
        raise _taken(out) from error
    except OSError as error:
        raise from_foreign(error) from error


def _rename_to_free_name(hidden: Path, out: Path) -> None:
    publish(hidden, out, lambda _path, _placeholder: None)


def _taken(out: Path) -> TimbredError:
    return BadRequest(f"--out {printable(str(out))} is there already: name another file, or add --overwrite")


_GENERATE = REQUEST_NAMED["generate"]

PATHS = ("init", "reference", "embeddings")
"""Parameters that name a file that is there."""

SWITCHES = frozenset(name for name, field in fields_of(Generate).items() if describe_type(field.type) == "0 or 1")
"""Parameters that need no value."""


def say(
    out: Path | None, overwrite: bool, like: Path | None, arguments: list[str], file: Path | None, flags: list[str]
) -> None:
    """Make one sound and print its file's path, last on standard output."""
    config = settings_from(file, flags)
    start_logging("error" if config["log.level"] == "info" else config["log.level"])
    request = request_from(out, like, arguments)
    if out is not None:
        check_target(out, overwrite)
    print(run(_say(config, request, out, overwrite)))


def request_from(out: Path | None, like: Path | None, arguments: list[str]) -> Generate:
    """The `generate` request that a command line stands for.

    Raises:
        BadRequest: a parameter that there isn't, or a value that isn't allowed.
        BadAudio: `like` carries no recipe.
    """
    prompt, given = _divided(*prompt_and_parameters(arguments, SWITCHES))
    given = {key: _in_this_folder(value) if key in PATHS else value for key, value in given.items()}
    stored = parameters_of(read_recipe(like)) if like else {}
    literal = {key: inline_keys.protect(stored[key], _is_key) for key in WORD_FIELDS if stored.get(key)}
    base = overlay({**stored, **literal}, given)
    if out is not None and "format" not in given:
        base["format"] = _format_of(out)
        if base["format"] == "ogg":
            base.pop("bits", None)
    words = {"prompt": inline_keys.protect(prompt, _is_key)} if prompt or not like else {}
    request: dict[str, Any] = {**base, **words, "id": f"say-{os.getpid()}"}
    for key in request:
        if key not in fields_of(Generate):
            raise BadRequest(f"--{key}: there is no such parameter; timbred describe lists them")
    built = build(_GENERATE, request)
    assert isinstance(built, Generate)
    return built


def _divided(prompt: str, parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The words of a prompt, and the parameters with those that the prompt names as `@key value`.

    Raises:
        BadRequest: a parameter is given twice, or has no value.
    """
    divided = inline_keys.group([prompt], _is_key, lambda index: "prompt")
    if divided.refusal is not None:
        raise divided.refusal
    found = dict(parameters)
    for key, atoms in divided.keys:
        if key in found or key == "prompt":
            raise BadRequest(f"{key}: given twice; give it once, as @{key} in the prompt or as --{key}")
        if not _is_key(key):
            raise BadRequest(
                f"@{key}: there is no such parameter; words with an @ go into double quotes, as in '\"dinner @ eight\"'"
            )
        if not atoms:
            raise BadRequest(f"@{key}: it needs a value")
        found[key] = " ".join(map(str, atoms))
    return " ".join(map(str, divided.positional)), found


def _is_key(name: str) -> bool:
    return is_key(_GENERATE, name)


def _in_this_folder(named: str) -> str:
    """The absolute path of a file that is there or is written as `./...`, for the daemon runs in another folder.

    All else is a take id, or a path inside the takes folder.
    """
    path = Path(named)
    written_as_path = named.startswith((".", "~"))
    try:
        path = path.expanduser()
        return str(path.absolute()) if written_as_path or path.exists() else named
    except (OSError, RuntimeError, ValueError):  # too long, no such user, NUL: the daemon says so
        return named


def _format_of(out: Path) -> str:
    ending = out.suffix.removeprefix(".").lower()
    wanted = {"aif": "aiff", "oga": "ogg", "": "wav"}.get(ending, ending)
    if wanted not in CONTAINERS:
        raise BadRequest(f"--out {out}: its ending should be one of {', '.join(CONTAINERS)}")
    return wanted


async def _say(config: Config, request: Generate, out: Path | None, overwrite: bool) -> Path:
    async with any_daemon(config) as connection:
        try:
            path = await _made(connection, request)
        except TimbredError as error:
            raise from_code(error.code, f"{error} ({error.code})") from error
    return path if out is None else copy_whole(path, out, overwrite)


async def _made(connection: CliConnection, request: Generate) -> Path:
    """The path of the best take; shows progress on standard error."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=error_console(), transient=not sys.stderr.isatty()) as progress:
        task = progress.add_task("starting", total=1.0)
        async for event in connection.ask(request):
            match event:
                case m.Queued():
                    progress.update(task, description="waiting for the engine")
                case m.Progress(stage="loading"):
                    progress.update(task, description="loading the model")
                case m.Progress(fraction=fraction):
                    progress.update(task, description=f"rendering {request.prompt!r}"[:60], completed=fraction)
                case m.Done(path=path):
                    progress.update(task, completed=1.0)
                    return Path(path)
                case _:
                    pass
    raise BadRequest("the request was cancelled by somebody else")
