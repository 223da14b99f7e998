"""The words of a command line after `timbred say`: the prompt, and `--key value` as `generate` names them."""

from typing import Any

from timbred.errors import BadRequest

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
