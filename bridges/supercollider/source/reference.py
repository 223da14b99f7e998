"""Generation of the help page of keys, ranges and error codes."""

from bridges.supercollider.source.classes import arguments, keys, method_name
from timbred.errors import CODES
from timbred.protocol.describe import Key
from timbred.protocol.schema import REQUEST_NAMED, REQUESTS


def reference() -> str:
    """Return the page in SuperCollider's help format."""
    methods = "\n".join(f"## code::Timbred.{method_name(e)}:: || {', '.join(arguments(e))}" for e in REQUESTS)
    lines = "\n".join(_key_line(key) for key in keys(REQUEST_NAMED["generate"]))
    codes = "\n".join(f"## {code} || {plain(kind.meaning)}" for code, kind in CODES.items())
    return f"""TITLE:: TimbredKeys
SUMMARY:: Every key, range and error code of timbred
CATEGORIES:: External>Timbred
RELATED:: Classes/Timbred, Classes/TimbredRequest, Classes/TimbredTake

DESCRIPTION::
Generated from timbred's protocol. The daemon checks every value; refused values are reported in the post window.

SECTION:: Keys of generate and vary

definitionlist::
{lines}
::

SECTION:: Methods and their arguments

definitionlist::
{methods}
::

SECTION:: Error codes

definitionlist::
{codes}
## timeout || No answer: the daemon isn't running, or exited. Sent by the Quark itself.
::
"""


def _key_line(key: Key) -> str:
    default = f"; default {key.default}" if key.default else ""
    return plain(f"## {key.name} || {key.about} ({key.allowed}{default})")


def plain(text: str) -> str:
    """Return a text without Markdown's backticks."""
    return text.replace("`", "")
