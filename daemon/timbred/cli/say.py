"""`timbred say`: one sound from the shell."""

import os
import sys
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from timbred.cli.connection import Connection, any_daemon
from timbred.cli.copying import check_target, copy_whole
from timbred.cli.options import prompt_and_parameters
from timbred.cli.output import error_console
from timbred.cli.serve import run, settings_from, start_logging
from timbred.config import Config
from timbred.errors import BadRequest, TimbredError, from_code
from timbred.library.recipe import overlaid, parameters_of
from timbred.protocol import inline_keys
from timbred.protocol import messages as m
from timbred.protocol.decode import build, fields_of, is_key
from timbred.protocol.frames import WORD_FIELDS
from timbred.protocol.messages import Generate
from timbred.protocol.values import describe
from timbred.protocol.vocabulary import REQUEST_NAMED
from timbred.render.decode import read_recipe
from timbred.render.formats import CONTAINERS

_GENERATE = REQUEST_NAMED["generate"]

PATHS = ("init", "reference", "embeddings")
"""Parameters that name a file that is there."""

SWITCHES = frozenset(name for name, field in fields_of(Generate).items() if describe(field.type) == "0 or 1")
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
    base = overlaid({**stored, **literal}, given)
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


async def _made(connection: Connection, request: Generate) -> Path:
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
