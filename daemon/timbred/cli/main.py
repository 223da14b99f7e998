"""The command line's options and commands. Each command imports what it needs when it runs."""

import errno
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from timbred import __version__
from timbred.cli.terminal import drop_output, escape_unencodable, finish_output, print_error_line
from timbred.errors import TimbredError, from_foreign
from timbred.protocol.describe import json_schema, protocol_reference


def print_description(as_json: bool) -> None:
    """Print the protocol's reference page, or the JSON Schema of its messages."""
    print(json.dumps(json_schema(), indent=2) if as_json else protocol_reference())


app = typer.Typer(
    name="timbred",
    help="Render audio from text, and serve music software over OSC, ZeroMQ and WebSocket.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="List, pull and convert models.", invoke_without_command=True)
app.add_typer(models_app, name="models")
loras_app = typer.Typer(help="List and add LoRAs.", invoke_without_command=True)
app.add_typer(loras_app, name="loras")
keys_app = typer.Typer(
    help="List, make and trust the keys for access from other machines.", invoke_without_command=True
)
app.add_typer(keys_app, name="keys")

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a setting; overrides the file and the environment. Repeatable."
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML file with settings, instead of the default one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
WITH_PARAMETERS = {"allow_extra_args": True, "ignore_unknown_options": True}


def _print_version(requested: bool) -> None:
    if requested:
        print(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    _ = version


@app.command()
def serve(settings: Settings = None, config: ConfigFile = None) -> None:
    """Run the daemon until Ctrl-C. Prints `ready ...` on standard output when it accepts requests."""
    from timbred.cli.serve import serve as run

    run(config, settings or [])


@app.command()
def demo(
    prompt: Annotated[str, typer.Argument(help="Description of the sound, in quotes.")] = "a deep punchy kick drum",
    play: Annotated[bool, typer.Option(help="Play the sound if there is an audio device.")] = True,
    settings: Settings = None,
    config: ConfigFile = None,
) -> None:
    """Render a first sound over OSC, print its file's path and play it.

    Uses the running daemon or, if there is none, starts one on free ports.
    """
    from timbred.cli.demo import demo as run

    run(prompt, play, config, settings or [])


@app.command(context_settings=WITH_PARAMETERS)
def say(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option(help="Copy the sound to this file; its extension selects the format.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Let --out replace an existing file.")] = False,
    like: Annotated[Path | None, typer.Option(help="Start from the recipe in this file.")] = None,
    settings: Settings = None,
    config: ConfigFile = None,
) -> None:
    """Render one sound from a PROMPT in quotes, and print the path of its file.

    Example: timbred say "rain on tin" --seconds 4

    Uses the running daemon or, if there is none, starts one for this call. Every parameter of `generate` is an option:
    --seed 7 --negative "low quality" --loop ...
    """
    from timbred.cli.say import say as run

    run(out, overwrite, like, context.args, config, settings or [])


@app.command()
def takes(
    search: Annotated[str, typer.Argument(help="Words that the prompt contains.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of takes.")] = 20,
    json: AsJson = False,
    settings: Settings = None,
    config: ConfigFile = None,
) -> None:
    """List the stored takes, newest first."""
    from timbred.cli.models import takes as run

    run(search, limit, json, config, settings or [])


@models_app.callback()
def models(context: typer.Context, json: AsJson = False, settings: Settings = None, config: ConfigFile = None) -> None:
    """List the models."""
    from timbred.cli.models import models as run

    if context.invoked_subcommand is None:
        run(json, config, settings or [])


@models_app.command()
def pull(
    name: Annotated[str, typer.Argument(help="A model's name, as `timbred models` lists it.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="PATH", help="A folder or archive (.zip, .tar, .tar.gz) instead of the hub."),
    ] = None,
    settings: Settings = None,
    config: ConfigFile = None,
) -> None:
    """Install a model from the hub, a folder or an archive. An interrupted download is resumed."""
    from timbred.cli.models import pull as run

    run(name, source, config, settings or [])


@models_app.command("describe")
def describe_model(
    name: Annotated[str, typer.Argument(help="A model's name, as `timbred models` lists it.")],
    json: AsJson = False,
    settings: Settings = None,
    config: ConfigFile = None,
) -> None:
    """Print the words that a model knows: kinds of sounds by family, effects, chords, scales, styles of loops."""
    from timbred.cli.models import describe as run

    run(name, json, config, settings or [])


@models_app.command()
def convert(
    name: Annotated[str, typer.Argument(help="A model's name, as `timbred models` lists it.")],
    settings: Settings = None,
    config: ConfigFile = None,
) -> None:
    """Convert a model's .bin weights to safetensors."""
    from timbred.cli.models import convert as run

    run(name, config, settings or [])


@loras_app.callback()
def loras(context: typer.Context, json: AsJson = False, settings: Settings = None, config: ConfigFile = None) -> None:
    """List the LoRAs."""
    from timbred.cli.models import loras as run

    if context.invoked_subcommand is None:
        run(json, config, settings or [])


@loras_app.command("pull")
def pull_lora(
    name: Annotated[str, typer.Argument(help="Name for requests, as in `@lora NAME:0.8`.")],
    source: Annotated[
        Path, typer.Option("--from", metavar="PATH", help="A .safetensors file, or a folder written by peft.")
    ],
    model: Annotated[
        str, typer.Option(help="Model that it was made for; not needed if the file names it, or it fits one only.")
    ] = "",
    licence: Annotated[str, typer.Option(help="Its licence, for the list.")] = "",
    settings: Settings = None,
    config: ConfigFile = None,
) -> None:
    """Add a LoRA: check that it fits its model, and copy it into the LoRA folder."""
    from timbred.cli.models import pull_lora as run

    run(name, source, model, licence, config, settings or [])


@keys_app.callback()
def keys(context: typer.Context, json: AsJson = False) -> None:
    """List this user's public key and the trusted ones."""
    from timbred.cli.keys import keys as run

    if context.invoked_subcommand is None:
        run(json)


@keys_app.command("make")
def make_keys(
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the key pair and the token; others have to trust the new key.")
    ] = False,
) -> None:
    """Make this user's key pair for ZeroMQ and a token for HTTP, and print the public key."""
    from timbred.cli.keys import make as run

    run(replace)


@keys_app.command("trust")
def trust_key(
    name: Annotated[str, typer.Argument(help="A name for the other machine.")],
    key: Annotated[
        str | None,
        typer.Argument(help="The public key that `timbred keys` prints there; read from standard input if not given."),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Host or address of its daemon, for requests to it; by default NAME.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the key that NAME has.")] = False,
) -> None:
    """Let another machine with this key connect by ZeroMQ, and use the key for the daemon at its host.

    A running daemon uses it at once. With --host alone, the host of a trusted key is changed.
    """
    from timbred.cli.keys import trust as run

    run(name, key, host, replace)


@keys_app.command("remove")
def remove_key(name: Annotated[str, typer.Argument(help="Name of a trusted key.")]) -> None:
    """Stop trusting a key. Connections that it has made last until they are closed."""
    from timbred.cli.keys import remove as run

    run(name)


@keys_app.command("token")
def print_token(settings: Settings = None, config: ConfigFile = None) -> None:
    """Print the token for HTTP and WebSocket, for programs: `Authorization: Bearer TOKEN`."""
    from timbred.cli.keys import token as run

    run(config, settings or [])


@keys_app.command("link")
def print_link(
    host: Annotated[
        str | None, typer.Option(help="Address of the daemon in the link, if it has several; any address of it.")
    ] = None,
    settings: Settings = None,
    config: ConfigFile = None,
) -> None:
    """Print a link to the panel of the running daemon. It lets one browser in, once, within ten minutes."""
    from timbred.cli.keys import link as run

    run(host, config, settings or [])


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="Name of the new LoRA, for requests.")],
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of sounds; their captions are .txt files of the same names, or the names' words."),
    ],
    model: Annotated[str, typer.Option(help="Model that the LoRA is for; the default model if not given.")] = "",
    steps: Annotated[int, typer.Option(min=1, max=1_000_000, help="Training steps.")] = 1000,
    previews: Annotated[
        int, typer.Option(min=0, help="Render the first caption after each so many steps; 0 for never.")
    ] = 200,
    rank: Annotated[int, typer.Option(min=1, max=256, help="Rank of the matrices.")] = 8,
    batch: Annotated[int, typer.Option(min=1, max=256, help="Sounds of one step.")] = 4,
    learning_rate: Annotated[float, typer.Option(min=1e-7, max=1, help="Learning rate.")] = 3e-4,
    seconds: Annotated[
        float,
        typer.Option(min=0, help="Longest part of a sound that is used at once; 0 for the model's default length."),
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the training.")] = 0,
    licence: Annotated[str, typer.Option(help="Licence of the LoRA, for the list.")] = "",
    restart: Annotated[
        bool, typer.Option("--restart", help="Discard an interrupted training of this name and its previews.")
    ] = False,
    settings: Settings = None,
    config: ConfigFile = None,
) -> None:
    """Make a LoRA from a folder of sounds. Ctrl-C interrupts the training; the same command continues it.

    Example: timbred train warm ~/Samples/warm --model stable-audio-open-1.0

    Needs the package peft, the extra `train`.
    """
    from timbred.cli.train import TrainingOptions
    from timbred.cli.train import train as run

    options = TrainingOptions(model, steps, previews, rank, batch, learning_rate, seconds, seed, licence, restart)
    run(name, folder, options, config, settings or [])


@app.command()
def doctor(json: AsJson = False, settings: Settings = None, config: ConfigFile = None) -> None:
    """Check this installation, and print a remedy for each problem."""
    from timbred.cli.doctor import doctor as run

    run(json, config, settings or [])


@app.command()
def engines(json: AsJson = False, settings: Settings = None, config: ConfigFile = None) -> None:
    """List the engines of the running daemon, with their devices, models and jobs."""
    from timbred.cli.doctor import engines as run

    run(json, config, settings or [])


@app.command()
def devices(json: AsJson = False) -> None:
    """List the audio output devices."""
    from timbred.cli.doctor import devices as run

    run(json)


@app.command()
def describe(
    json: Annotated[bool, typer.Option("--json", help="Print the JSON Schema of all messages.")] = False,
) -> None:
    """Print the whole protocol: every request, event, parameter and error code."""
    print_description(json)


def main(arguments: list[str] | None = None) -> Any:
    """Run the program. An error is one line on standard error and exit status 1; wrong usage is status 2."""
    escape_unencodable(sys.stdout, sys.stderr)
    try:
        try:
            return app(args=arguments)
        finally:
            finish_output()
    except TimbredError as error:
        print_error_line(f"timbred: {error}")
    except BrokenPipeError:  # the reader of the output has closed it
        drop_output()
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EIO):
            error.filename = "standard output"
        print_error_line(f"timbred: {from_foreign(error)}")
        drop_output()
    sys.exit(1)
