"""The scripts on their own: Node's tests of them, and the bytes they write and read against timbred's own."""

import json
import os
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.host_programs import require_program
from tests.max.stages import SCRIPTS
from timbred.protocol import messages as m
from timbred.protocol.osc import encode_event, read_datagram

HERE = Path(__file__).parent


def test_scripts_pass_their_tests_under_node(require_host: Callable[[str], str]) -> None:
    tests = sorted(map(str, (HERE / "scripts").glob("*.test.js")))
    assert tests
    done = subprocess.run(
        [require_host("node"), "--test", *tests],
        capture_output=True,
        text=True,
        env={**os.environ, "TIMBRED_SCRIPTS": str(SCRIPTS), "NODE_PATH": str(SCRIPTS)},  # Max's js finds them by name
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 0" not in done.stdout


class Codec:
    """The scripts' OSC, asked line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="module")
def codec() -> Generator[Codec]:
    """One Node for all examples."""
    node = require_program("node")
    command = [node, str(HERE / "stage" / "codec.js"), str(SCRIPTS / "timbred-osc.js")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Codec(process)
        assert process.stdin is not None
        process.stdin.close()


WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40)
PROMPTS = WORDS.filter(lambda words: bool(words.strip()) and not words.startswith("@"))
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(prompt=PROMPTS, seed=st.integers(0, 2**31 - 1))
def test_scripts_write_what_timbred_reads(codec: Codec, prompt: str, seed: int) -> None:
    found = codec.ask(encode=["/timbred/generate", ["max-1", prompt, "@seed", seed, "@seconds", 0.1]])
    [incoming] = read_datagram(bytes.fromhex(found["hex"]))
    assert incoming.outcome == m.Generate(id="max-1", prompt=prompt, seed=seed, seconds=0.1)


@many
@given(path=WORDS, seed=st.integers(0, 2**31 - 1), seconds=st.floats(0.0625, 600, width=32))
def test_scripts_read_what_timbred_writes(codec: Codec, path: str, seed: int, seconds: float) -> None:
    take = m.Take(
        id="max-1", index=0, path=path, seconds=seconds, rate=48000, channels=2, seed=seed, score=0.0, take_id="T"
    )
    found = codec.ask(decode=encode_event(take).hex())
    assert found["message"] == ["/timbred/take", "max-1", 0, path, seconds, 48000, 2, seed, 0, "T"]


@many
@given(st.binary(max_size=200))
def test_scripts_read_or_refuse_any_message_with_a_reason(codec: Codec, packet: bytes) -> None:
    found = codec.ask(decode=packet.hex())
    assert found.get("refused") or found["message"][0].startswith("/")
