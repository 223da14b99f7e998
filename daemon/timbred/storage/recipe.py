"""A recipe: everything needed to render a sound again, as JSON. It is stored with the take and inside the file.

    {"timbred": "0.1.0",                 version that rendered it
     "recipe": 1,                        version of this format
     "model": "pocket", "licence": "Apache-2.0",
     "model_version": "2-1f0c",         the training of its weights, where several have had this name
     "prompt": "rain on tin", "seed": 7,
     "created": "2026-01-31T12:00:00Z",
     "device": "CPU, 2 threads, float32", what rendered it: its name and precision
     "model_prompt": "rain on tin, C minor",    the prompt as the model got it, where words were appended
     "measured": {"tempo": 97.0},               what was measured in the sound: tempo, key, downbeat in seconds
     "parameters": {"seconds": 4.0}}     the other keys of `generate`, by their names on the wire

Keys of delivery and playback are left out: a recipe describes the sound only.
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
from timbred.protocol.keys import MAX_PROMPT_CHARACTERS, Prompt
from timbred.protocol.messages import Generate

RECIPE_FORMAT = 1
"""The version of this format."""

TOP_LEVEL_KEYS = frozenset({"model", "prompt", "seed"})
"""Keys of `generate` that are top-level fields of a recipe."""

DELIVERY_KEYS = frozenset(
    {"id", "port", "takes", "rank", "measure", "fit", "to", "name", "folder", "priority", "preview", "by", "inline"}
    | {"voice", "gain", "pan", "speed", "out", "at", "fade"}
)
"""Keys of `generate` that describe delivery or playback."""

PARAMETERS: tuple[str, ...] = tuple(
    name for name in Generate.__struct_fields__ if name not in TOP_LEVEL_KEYS | DELIVERY_KEYS
)
"""All keys that `parameters` may contain."""

SAMPLING_KEYS = ("steps", "guidance", "eta", "scheduler")
"""Keys of `generate` whose defaults belong to a model's weights."""

MUSICAL_KEYS = ("key", "bpm", "signature")
"""Keys of `generate` that `in_words` puts into the prompt."""

MAX_MODEL_PROMPT_CHARACTERS = MAX_PROMPT_CHARACTERS + 200
"""Maximum length of a prompt with the musical keys in words."""

MAX_TEXT_CHARACTERS = 200
"""Maximum length of the short texts in a recipe."""

Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS)]


class _RecipeFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A recipe from outside. Parameters are parsed as `Generate`'s."""

    timbred: Text
    recipe: Annotated[int, Meta(ge=1)]
    model: Text
    prompt: Prompt
    seed: Annotated[int, Meta(ge=0, le=2_147_483_647)]
    created: Text = ""
    licence: Text = ""
    model_version: Text = ""
    device: Text = ""
    model_prompt: Annotated[str, Meta(max_length=MAX_MODEL_PROMPT_CHARACTERS)] = ""
    measured: dict[Text, float | Text] = msgspec.field(default_factory=dict[str, float | str])
    parameters: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


def make_recipe(
    parameters: Mapping[str, Any],
    *,
    model: str,
    licence: str,
    prompt: str,
    seed: int,
    model_prompt: str = "",
    device: str = "",
    model_version: str = "",
    version: str = timbred.__version__,
    created: float | None = None,
) -> Recipe:
    """Return the recipe of one take.

    Args:
        parameters: `generate`'s keys and their values as rendered; None values, and keys of delivery and playback, are
            left out.
        model: its name.
        licence: from the model's card.
        prompt: of this take.
        seed: of this take.
        model_prompt: the prompt as the model got it; recorded if it differs.
        device: name and precision of the device that rendered it; recorded if it is known.
        model_version: name of the training of the model's weights; recorded if there is one.
        version: timbred's.
        created: unix time; None is now.

    Raises:
        ValueError: a key that `generate` doesn't have.
    """
    unknown = sorted(set(parameters) - set(Generate.__struct_fields__))
    if unknown:
        raise ValueError(f"not keys of generate: {', '.join(unknown)}")
    moment = datetime.now(UTC) if created is None else datetime.fromtimestamp(created, UTC)
    extended_prompt = {"model_prompt": model_prompt} if model_prompt not in ("", prompt) else {}
    return {
        "timbred": version,
        "recipe": RECIPE_FORMAT,
        "model": model,
        "licence": licence,
        **({"model_version": model_version} if model_version else {}),
        "prompt": prompt,
        "seed": seed,
        "created": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        **extended_prompt,
        **({"device": device[:MAX_TEXT_CHARACTERS]} if device else {}),
        "parameters": {name: parameters[name] for name in PARAMETERS if parameters.get(name) is not None},
    }


def with_measured(recipe: Recipe, measured: Mapping[str, float | str]) -> Recipe:
    """Return a recipe with what was measured in the sound; without change if nothing was."""
    return {**recipe, "measured": dict(measured)} if measured else recipe


def parameters_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return `generate`'s keys that render this sound again: prompt, model, seed and the recipe's parameters.

    The recipe may come from an untrusted file, and is validated in full.

    Raises:
        BadAudio: unknown fields (named), wrong types, values out of range, or a newer recipe format.
    """
    recipe_file = _read(recipe)
    if recipe_file.recipe > RECIPE_FORMAT:
        raise BadAudio(
            f"the recipe's format is {recipe_file.recipe}, this timbred supports up to {RECIPE_FORMAT}: update timbred"
        )
    unknown = sorted(set(recipe_file.parameters) - set(PARAMETERS))
    if unknown:
        raise BadAudio(f"the recipe has unknown parameters: {_list_names(unknown)}")
    values = {
        "prompt": recipe_file.prompt,
        "model": recipe_file.model,
        "seed": recipe_file.seed,
        **recipe_file.parameters,
    }
    if values.get("bpm") is not None:
        # recipes from before `in_words` have a tempo only for their length
        values.setdefault("in_words", False)
    return _parse_parameters(values)


def without_sampling(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's parameters without those that belong to the weights that it was rendered with."""
    return {name: value for name, value in parameters.items() if name not in SAMPLING_KEYS}


def overlay(parameters: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's parameters with some changed. A length in one unit replaces that in the other.

    A change of `key`, `bpm` or `signature` resets `in_words` to its default.

    >>> overlay({"prompt": "pad", "bars": 2.0, "bpm": 90.0}, {"seconds": 1.5})
    {'prompt': 'pad', 'seconds': 1.5}
    """
    keeps_tempo = parameters.get("in_words") or "bars" not in parameters
    replaced = {
        *(("bars", "beats_per_bar") if "seconds" in changes else ()),
        *(("bpm",) if "seconds" in changes and not keeps_tempo else ()),
        *(("in_words",) if any(key in changes for key in MUSICAL_KEYS) else ()),
        *(("seconds",) if "bars" in changes else ()),
    }
    return {**{name: value for name, value in parameters.items() if name not in replaced}, **changes}


def _read(recipe: Mapping[str, Any]) -> _RecipeFile:
    unknown = sorted(set(map(str, recipe)) - set(_RecipeFile.__struct_fields__))
    if unknown:
        raise BadAudio(f"the recipe has unknown fields: {_list_names(unknown)}")
    try:
        return msgspec.convert(dict(recipe), _RecipeFile)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadAudio(f"the recipe can't be used: {error}") from error


def _parse_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    try:
        read = msgspec.convert({"id": "recipe", **parameters}, Generate)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadAudio(f"the recipe can't be used: {error}") from error
    values = {name: getattr(read, name) for name in parameters}
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise BadAudio(f"the recipe can't be used: {name} is {value}")
    return values


def _list_names(names: list[str]) -> str:
    shown = ", ".join(ascii(name[:40]) for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
