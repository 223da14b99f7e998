"""`pocket.json` from outside: every damage is refused with an error that names the file."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timbred.errors import ModelError
from timbred.models import pocket
from timbred.models.pocket import (
    CARD_NAME,
    DrumStyle,
    Instrument,
    PocketCard,
    PocketSound,
    Recording,
    TextSizes,
    Vocabulary,
    decode_card,
    is_pocket,
    read_card,
)

PATH = Path("model") / CARD_NAME

VOCABULARY = Vocabulary(
    instruments=(Instrument(0, 0, ("grand piano", "piano"), 24, 100, False, "piano"),),
    unpitched=((0, 122, ("seashore",)),),
    drums={36: ("kick",), 54: ("tambourine",)},
    kits={0: ("acoustic",)},
    shared_keys=(54,),
    recordings={"vinyl": Recording(("vinyl hiss",), "texture", 8.0)},
    synthesised={"zap": ("zap", "laser")},
    chords={"major": (0, 4, 7)},
    scales={"minor": (0, 2, 3)},
    styles={"rock": DrumStyle(("rock",), (90, 150), (0,), ({36: "X.......X......."},))},
    loops=("drum loop",),
    effects={"reverb": ("reverberant",)},
    words=("piano",),
)


def content() -> dict[str, Any]:
    sound = PocketSound("font", "grand piano", "note", 2.0, 1, events=((0.0, 1.8, 60, 95),), velocity=95, note=60)
    return {
        "sample_rate": 44_100,
        "channels": 2,
        "max_seconds": 10.0,
        "steps": 4,
        "guidance": 1.0,
        "sizes": {
            "text": dataclasses.asdict(TextSizes()),
            "generator": {"vector": VOCABULARY.condition_size(384)},
            "codec": {},
        },
        "vocabulary": json.loads(json.dumps(dataclasses.asdict(VOCABULARY))),
        "encoder": 7,
        "bank": [[sound.to_dict(), 0.5, 0, 12]],
    }


def decoded(values: dict[str, Any]) -> PocketCard:
    return decode_card(json.dumps(values).encode(), "second", PATH, "install it again")


def test_decode_card_reads_what_was_written() -> None:
    card = decoded(content())
    assert card.vocabulary == VOCABULARY
    assert card.entries[0].sound.events == ((0.0, 1.8, 60, 95),)
    assert card.vocabulary.families["drum loops"] == ("rock drum loop",)
    assert card.vocabulary.descriptions["scales"] == ("minor scale",)
    assert card.vocabulary.descriptions["effects"] == ("reverberant",)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("sample_rate",), 48_000),
        (("channels",), 1),
        (("steps",), 0),
        (("guidance",), 1e9),
        (("max_seconds",), -1.0),
        (("sizes", "text", "width"), 10**9),
        (("sizes", "text", "heads"), 5),
        (("sizes", "generator", "vector"), 12),
        (("sizes", "codec", "group_latent"), 13),
        (("sizes", "codec", "widths"), [60, 128]),
        (("bank",), []),
        (("bank", 0, 3), 10**9),
        (("bank", 0, 1), -1.0),
        (("bank", 0, 0, "kind"), "dog"),
        (("bank", 0, 0, "events"), [[0.0, 1.0, 300, 95]]),
        (("bank", 0, 0, "recipe"), {"length": "long"}),
        (("vocabulary", "instruments"), []),
        (("vocabulary", "instruments", 0, "names"), []),
        (("vocabulary", "instruments", 0, "names"), ["x" * 201]),
        (("vocabulary", "effects"), {"reverb": [""]}),
        (("vocabulary", "instruments", 0, "low"), 101),
        (("vocabulary", "styles", "rock", "bars"), [{"36": "X"}]),
        (("vocabulary", "styles", "rock", "kits"), [9]),
        (("vocabulary", "chords"), {"major": []}),
        (("vocabulary", "kits"), {"8": ["room"]}),
    ],
)
def test_decode_card_refuses_values_out_of_range(keys: tuple[str | int, ...], value: object) -> None:
    values = content()
    *path, last = keys
    place: Any = values
    for key in path:
        place = place[key]
    place[last] = value
    with pytest.raises(ModelError, match=r"pocket\.json is damaged"):
        decoded(values)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.floats() | st.text(max_size=8), st.lists))
@settings(max_examples=60, deadline=None)
def test_decode_card_refuses_anything_else(found: object) -> None:
    raw = found if isinstance(found, bytes) else json.dumps(found).encode()
    with pytest.raises(ModelError):
        decode_card(raw, "second", PATH, "install it again")


def test_read_card_names_what_can_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_pocket(tmp_path)
    with pytest.raises(ModelError, match="isn't a file"):
        read_card(tmp_path, "second", "install it again")
    (tmp_path / CARD_NAME).write_text("{}")
    assert is_pocket(tmp_path)
    with pytest.raises(ModelError, match="install it again"):
        read_card(tmp_path, "second", "install it again")
    monkeypatch.setattr(pocket, "MAX_CARD_BYTES", 1)
    with pytest.raises(ModelError, match="at most"):
        read_card(tmp_path, "second", "install it again")
