"""The reference page is complete and up to date; the schema holds what the decoders take."""

from pathlib import Path

import pytest

from timbred.errors import CODES
from timbred.protocol import messages as m
from timbred.protocol.coercion import fields_of
from timbred.protocol.describe import json_schema, osc_tags, protocol_reference
from timbred.protocol.schema import EVENTS, REQUESTS, EventEntry

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"


def test_protocol_reference_equals_the_page() -> None:
    written = PAGE.read_text("utf-8")
    assert written == protocol_reference(), "run: python -m timbred.protocol.describe > docs/protocol.md"


def test_protocol_reference_contains_every_name() -> None:
    page = protocol_reference()
    for entry in (*REQUESTS, *EVENTS):
        assert entry.address in page
        for name in fields_of(entry.kind):
            assert f"`{name}`" in page or f"`@{name}`" in page or f'"{name}"' in page, name
    assert all(f"`{code}`" in page for code in CODES)


@pytest.mark.parametrize("entry", EVENTS, ids=lambda entry: entry.kind.__name__)
def test_osc_tags_are_only_i_f_and_s(entry: EventEntry) -> None:
    assert set(osc_tags(entry.kind)) <= set(",ifs?")


def test_json_schema_names_every_message() -> None:
    schema = json_schema()
    names = set(schema["$defs"])
    assert names == {f"request.{one.name}" for one in REQUESTS} | {f"event.{one.name}" for one in EVENTS}
    assert len(schema["requests"]) == len(REQUESTS)
    generate = schema["$defs"]["request.generate"]
    assert generate["required"] == ["type", "id", "prompt"]
    assert generate["properties"]["type"] == {"const": "generate"}
    assert set(generate["properties"]) == {"type", *fields_of(m.Generate)} - {"port"}
