"""`--key value` pairs of a command line, as `generate` names them."""

from typing import Any

from timbred.errors import BadRequest


def parameters_from(arguments: list[str]) -> dict[str, Any]:
    """`--seed 7 --fade-out 0.1 --loop` as parameters; a key without a value is a switch.

    >>> parameters_from(["--seed", "7", "--fade-out=0.1", "--loop", "--negative", "low quality"])
    {'seed': '7', 'fade_out': '0.1', 'loop': '1', 'negative': 'low quality'}

    Raises:
        BadRequest: an argument that is no option.
    """
    parameters: dict[str, Any] = {}
    waiting = list(arguments)
    while waiting:
        option = waiting.pop(0)
        if not option.startswith("--") or option == "--":
            raise BadRequest(f"{option!r}: put the prompt in quotes, and write parameters as --key value")
        key, equals, value = option[2:].partition("=")
        if not equals:
            value = waiting.pop(0) if waiting and not waiting[0].startswith("--") else "1"
        parameters[key.replace("-", "_")] = value
    return parameters
