"""`timbred say`: render one sound from the command line."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from timbred.audiofile.files import read_recipe
from timbred.cli.serve import CliConnection, any_daemon, run, settings_from, start_logging
from timbred.cli.terminal import error_console
from timbred.config import Config
from timbred.errors import BadRequest, TimbredError, from_code, from_foreign
from timbred.filenames import name_fault, printable
from timbred.ipc.socket_folder import atomic_write
from timbred.protocol import inline_keys
from timbred.protocol import messages as m
from timbred.protocol.coercion import build, describe_type, fields_of, key_names
from timbred.protocol.json import WORD_FIELDS
from timbred.protocol.messages import Generate
from timbred.protocol.schema import REQUEST_NAMED
from timbred.render_settings import CONTAINERS_BY_FORMAT
from timbred.storage.recipe import overlay, parameters_of
from timbred.storage.takes_folder import publish

BOOLEAN_WORDS = ("0", "1", "true", "false", "yes", "no", "on", "off")


def prompt_and_parameters(arguments: list[str], switches: frozenset[str]) -> tuple[str, dict[str, Any]]:
    """Return the prompt (empty if there is none) and the parameters. A switch needs no value.

    >>> prompt_and_parameters(["a bell", "--seed", "7", "--fade-out=0.1", "--loop"], frozenset({"loop"}))
    ('a bell', {'seed': '7', 'fade_out': '0.1', 'loop': '1'})

    Raises:
        BadRequest: A second prompt, or a parameter without a value.
    """
    prompt: str | None = None
    parameters: dict[str, Any] = {}
    remaining = list(arguments)
    while remaining:
        word = remaining.pop(0)
        if word.startswith("--") and word != "--":
            key, equals, value = word[2:].partition("=")
            key = key.replace("-", "_")
            parameters[key] = value if equals else _take_value(key, remaining, switches)
        elif prompt is None and word != "--":
            prompt = word
        elif word != "--":
            raise BadRequest(f"{word!r}: put the prompt in quotes, and write parameters as --key value")
    return prompt or "", parameters


def _take_value(key: str, remaining: list[str], switches: frozenset[str]) -> str:
    following = remaining[0] if remaining else None
    if key in switches:
        return remaining.pop(0) if following is not None and following.lower() in BOOLEAN_WORDS else "1"
    if following is None or following.startswith("--"):
        raise BadRequest(f"--{key.replace('_', '-')}: a value is required")
    return remaining.pop(0)


def check_target(out: Path, overwrite: bool) -> None:
    """Check that the file may be written, before the sound is rendered.

    Raises:
        BadRequest: Its name isn't allowed on every system, it exists, or it is a folder.
    """
    shown = printable(str(out))
    if fault := name_fault(out.name):
        raise BadRequest(f"--out {shown}: {fault}; choose another name")
    if out.is_dir():
        raise BadRequest(f"--out {shown}: that is a folder; choose a file")
    if not overwrite and os.path.lexists(out):
        raise _exists_error(out)


def copy_atomically(path: Path, out: Path, overwrite: bool) -> Path:
    """Copy a file to a hidden name and rename it; return the absolute path of the copy.

    Raises:
        BadRequest: The target exists.
        TimbredError: It can't be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(out, os.replace if overwrite else _rename_to_free_name) as hidden:
            shutil.copyfile(path, hidden)
            hidden.chmod(path.stat().st_mode & 0o777)
        return out.absolute()
    except FileExistsError as error:
        raise _exists_error(out) from error
    except OSError as error:
        raise from_foreign(error) from error


def _rename_to_free_name(hidden: Path, out: Path) -> None:
    publish(hidden, out, lambda _path, _placeholder: None)


def _exists_error(out: Path) -> TimbredError:
    return BadRequest(f"--out {printable(str(out))} exists already: choose another file, or add --overwrite")


_GENERATE = REQUEST_NAMED["generate"]

PATH_PARAMETERS = ("init", "reference", "embeddings")
"""Parameters whose values are existing files."""

SWITCHES = frozenset(name for name, field in fields_of(Generate).items() if describe_type(field.type) == "0 or 1")
"""Parameters that need no value."""


def say(
    out: Path | None, overwrite: bool, like: Path | None, arguments: list[str], file: Path | None, flags: list[str]
) -> None:
    """Render one sound and print its file's path, last on standard output."""
    config = settings_from(file, flags)
    start_logging("error" if config["log.level"] == "info" else config["log.level"])
    request = request_from(out, like, arguments)
    if out is not None:
        check_target(out, overwrite)
    print(run(_say(config, request, out, overwrite)))


def request_from(out: Path | None, like: Path | None, arguments: list[str]) -> Generate:
    """Return the `generate` request of a command line.

    Raises:
        BadRequest: An unknown parameter, or a value that isn't allowed.
        BadAudio: `like` has no recipe.
    """
    prompt, parameters = _merge_inline_keys(*prompt_and_parameters(arguments, SWITCHES))
    parameters = {key: _absolute(value) if key in PATH_PARAMETERS else value for key, value in parameters.items()}
    stored = parameters_of(read_recipe(like)) if like else {}
    literal = {key: inline_keys.protect(stored[key], _is_key) for key in WORD_FIELDS if stored.get(key)}
    base = overlay({**stored, **literal}, parameters)
    if out is not None and "format" not in parameters:
        base["format"] = _format_of(out)
        if base["format"] == "ogg":
            base.pop("bits", None)
    words = {"prompt": inline_keys.protect(prompt, _is_key)} if prompt or not like else {}
    request: dict[str, Any] = {**base, **words, "id": f"say-{os.getpid()}"}
    for key in request:
        if key not in fields_of(Generate):
            raise BadRequest(f"--{key}: there is no such parameter; timbred describe lists them")
    generate = build(_GENERATE, request)
    assert isinstance(generate, Generate)
    return generate


def _merge_inline_keys(prompt: str, parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the prompt without its `@key value` pairs, and the parameters with them.

    Raises:
        BadRequest: A parameter is given twice, or has no value.
    """
    divided = inline_keys.group([prompt], _is_key, ["prompt"])
    if divided.refusal is not None:
        raise divided.refusal
    merged = dict(parameters)
    for key, atoms in divided.keys:
        if key in merged or key == "prompt":
            raise BadRequest(f"{key}: given twice; give it once, as @{key} in the prompt or as --{key}")
        if not _is_key(key):
            raise BadRequest(
                f"@{key}: there is no such parameter; put text with an @ in double quotes, as in '\"dinner @ eight\"'"
            )
        if not atoms:
            raise BadRequest(f"@{key}: a value is required")
        merged[key] = " ".join(map(str, atoms))
    return " ".join(map(str, divided.positional)), merged


def _is_key(name: str) -> bool:
    return name in key_names(_GENERATE)


def _absolute(text: str) -> str:
    """Return the absolute path of an existing file or of `./...`, since the daemon runs in another folder.

    Any other text is a take id, or a path inside the takes folder, and is returned unchanged.
    """
    path = Path(text)
    written_as_path = text.startswith((".", "~"))
    try:
        path = path.expanduser()
        return str(path.absolute()) if written_as_path or path.exists() else text
    except (OSError, RuntimeError, ValueError):  # too long, no such user, NUL: the daemon refuses it
        return text


def _format_of(out: Path) -> str:
    extension = out.suffix.removeprefix(".").lower()
    file_format = {"aif": "aiff", "oga": "ogg", "": "wav"}.get(extension, extension)
    if file_format not in CONTAINERS_BY_FORMAT:
        raise BadRequest(f"--out {out}: its extension must be one of {', '.join(CONTAINERS_BY_FORMAT)}")
    return file_format


async def _say(config: Config, request: Generate, out: Path | None, overwrite: bool) -> Path:
    async with any_daemon(config) as connection:
        try:
            path = await _render(connection, request)
        except TimbredError as error:
            raise from_code(error.code, f"{error} ({error.code})") from error
    return path if out is None else copy_atomically(path, out, overwrite)


async def _render(connection: CliConnection, request: Generate) -> Path:
    """Send the request, show its progress and warnings on standard error; return the path of the best take."""
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
                case m.Warned(key=key, message=message):
                    progress.console.print(f"{key}: {message}", markup=False, highlight=False)
                case m.Done(path=path):
                    progress.update(task, completed=1.0)
                    return Path(path)
                case _:
                    pass
    raise BadRequest("the request was cancelled by another client")
