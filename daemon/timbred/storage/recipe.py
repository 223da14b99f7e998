"""A recipe: everything needed to make a sound again, as JSON. It is stored with the take and inside the file.

    {"timbred": "0.1.0",                 version that made it
     "recipe": 1,                        version of this shape
     "model": "pocket", "licence": "Apache-2.0",
     "prompt": "rain on tin", "seed": 7,
     "created": "2026-01-31T12:00:00Z",
     "parameters": {"seconds": 4.0}}     the rest of `generate`'s keys, by their names on the wire

A recipe says how a sound was made, not where it went: keys of delivery and playback are left out.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

import timbred
from timbred.audio import Recipe
from timbred.errors import BadAudio
from timbred.protocol.keys import Prompt
from timbred.protocol.messages import Generate

FORMAT = 1
"""The version of the shape above."""

OF_ITS_OWN = frozenset({"model", "prompt", "seed"})
"""Keys of `generate` that stand at the recipe's top."""

NOT_OF_THE_SOUND = frozenset(
    {"id", "port", "takes", "rank", "to", "name", "folder", "priority", "preview", "by", "inline"}
    | {"voice", "gain", "pan", "speed", "out", "at", "fade"}
)
"""Keys of `generate` that say what was done with the sound."""

PARAMETERS: tuple[str, ...] = tuple(
    name for name in Generate.__struct_fields__ if name not in OF_ITS_OWN | NOT_OF_THE_SOUND
)
"""Every key that `parameters` may hold."""

Text = Annotated[str, Meta(max_length=200)]


class _Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A recipe from outside. Parameters are read as `Generate` reads them."""

    timbred: Text
    recipe: Annotated[int, Meta(ge=1)]
    model: Text
    prompt: Prompt
    seed: Annotated[int, Meta(ge=0, le=2_147_483_647)]
    created: Text = ""
    licence: Text = ""
    parameters: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


def make_recipe(
    parameters: Mapping[str, Any],
    *,
    model: str,
    licence: str,
    prompt: str,
    seed: int,
    version: str = timbred.__version__,
    created: float | None = None,
) -> Recipe:
    """The recipe of one take.

    Args:
        parameters: `generate`'s keys and their values as they were carried out; None values, and keys
            that say what was done with the sound, are left out.
        model, licence: from the model's card.
        prompt, seed: of this take.
        version: timbred's.
        created: unix time; None is now.

    Raises:
        ValueError: a key that `generate` doesn't have.
    """
    unknown = sorted(set(parameters) - set(Generate.__struct_fields__))
    if unknown:
        raise ValueError(f"not keys of generate: {', '.join(unknown)}")
    moment = datetime.now(UTC) if created is None else datetime.fromtimestamp(created, UTC)
    return {
        "timbred": version,
        "recipe": FORMAT,
        "model": model,
        "licence": licence,
        "prompt": prompt,
        "seed": seed,
        "created": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "parameters": {name: parameters[name] for name in PARAMETERS if parameters.get(name) is not None},
    }


def parameters_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """`generate`'s keys with which to make this sound again: prompt, model, seed and the recipe's parameters.

    The recipe may come from a stranger's file, and is validated in full.

    Raises:
        BadAudio: unknown fields (named), wrong kinds, values out of range, or a newer recipe format.
    """
    shape = _read(recipe)
    if shape.recipe > FORMAT:
        raise BadAudio(f"the recipe's format is {shape.recipe}, this timbred reads up to {FORMAT}: update it")
    unknown = sorted(set(shape.parameters) - set(PARAMETERS))
    if unknown:
        raise BadAudio(f"the recipe has parameters that don't belong there: {_listed(unknown)}")
    whole = {"prompt": shape.prompt, "model": shape.model, "seed": shape.seed, **shape.parameters}
    return _as_generate_reads(whole)


def overlaid(parameters: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's parameters with what is named changed. A length in the one unit replaces that in the other.

    >>> overlaid({"prompt": "pad", "bars": 2.0, "bpm": 90.0}, {"seconds": 1.5})
    {'prompt': 'pad', 'seconds': 1.5}
    """
    replaced = {
        *(("bars", "bpm", "beats_per_bar") if "seconds" in named else ()),
        *(("seconds",) if "bars" in named else ()),
    }
    return {**{name: value for name, value in parameters.items() if name not in replaced}, **named}


def _read(recipe: Mapping[str, Any]) -> _Shape:
    unknown = sorted(set(map(str, recipe)) - set(_Shape.__struct_fields__))
    if unknown:
        raise BadAudio(f"the recipe has unknown fields: {_listed(unknown)}")
    try:
        return msgspec.convert(dict(recipe), _Shape)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadAudio(f"the recipe can't be used: {error}") from error


def _as_generate_reads(parameters: dict[str, Any]) -> dict[str, Any]:
    try:
        read = msgspec.convert({"id": "recipe", **parameters}, Generate)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadAudio(f"the recipe can't be used: {error}") from error
    values = {name: getattr(read, name) for name in parameters}
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise BadAudio(f"the recipe can't be used: {name} is {value}")
    return values


def _listed(names: list[str]) -> str:
    shown = ", ".join(ascii(name[:40]) for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
