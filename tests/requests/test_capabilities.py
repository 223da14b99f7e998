"""Each family and each feature: it renders, or the refusal names the missing capability."""

from typing import Any

import msgspec
import pytest

from tests.requests.test_resolve import CARD, asked
from timbred import errors
from timbred.models.families import FAMILIES, Capability, Family
from timbred.requests.resolve import Session, resolve

INIT: dict[str, Any] = {"init": "x.wav"}
FEATURES: dict[Capability, dict[str, Any]] = {
    "negative": {"negative": "hum"},
    "weights": {"weights": "pad:1.5"},
    "init": INIT,
    "inpaint": {**INIT, "regions": "0.5-1 2-3"},
    "bands": {**INIT, "low": 400.0},
    "extend": {**INIT, "extend": 1.0},
    "windows": {**INIT, "extend": 6.0},
    "loop": {"loop": True},
    "lyrics": {"lyrics": "la la"},
    "task": {**INIT, "task": "cover"},
    "reference": {"reference": "x.wav"},
    "lora": {"lora": "warm:0.5"},
}


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_capabilities_of_each_family_render_or_are_named(family: Family, feature: Capability):
    card = msgspec.structs.replace(
        CARD,
        name="tiny",
        max_seconds=8.0,
        scheduler=family.schedulers[0],
        schedulers=family.schedulers,
        capabilities=family.capabilities,
    )
    request = asked(**FEATURES[feature])
    init_seconds = 4.0 if request.init else None
    if feature in family.capabilities:
        assert resolve(request, card, Session(), 0, init_seconds=init_seconds).model == "tiny"
        return
    with pytest.raises(errors.BadRequest, match=rf"tiny can't .*\({feature}\)"):
        resolve(request, card, Session(), 0, init_seconds=init_seconds)
