"""The table of pipeline parameters in the documentation names every parameter of every pipeline."""

import inspect
import re
from pathlib import Path
from typing import Any

import diffusers
import pytest

from timbred.models.families import FAMILIES
from timbred.protocol.messages import Generate

PAGE = (Path(__file__).parents[3] / "docs" / "pipelines.md").read_text("utf-8")
PIPELINES = tuple(name for family in FAMILIES for name in family.pipelines)
SHORT_NAMES = {name: short for short, name in re.findall(r"^\| (\w+) \| `(\w+)` \|$", PAGE, re.MULTILINE)}
ROWS = re.findall(r"^\| `(\w+)` \| ((?:[A-Z]\w*)(?: [A-Z]\w*)*) \| (.+) \|$", PAGE, re.MULTILINE)
REASON_LENGTH = 10
PYTHON_OBJECTS = frozenset(
    {"callback", "callback_steps", "callback_on_step_end", "callback_on_step_end_tensor_inputs", "return_dict"}
)
"""Parameters that no message can carry: functions, and the form of the result."""


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_pipeline_table_names_exactly_the_parameters_of_each_pipeline(pipeline: str):
    kind: Any = getattr(diffusers, pipeline)
    parameters = set(inspect.signature(kind.__call__).parameters) - {"self"}
    listed = [name for name, shorts, _ in ROWS if SHORT_NAMES[pipeline] in shorts.split()]
    assert len(listed) == len(set(listed))
    assert set(listed) == parameters


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, _, key in ROWS])
def test_pipeline_table_gives_a_key_or_a_reason_for_each_parameter(name: str, key: str):
    if key.startswith("none: "):
        assert name in PYTHON_OBJECTS, f"{name} must have a key, or be a tensor of a file of embeddings"
        assert len(key) > REASON_LENGTH, name
        return
    keys = re.findall(r"`(\w+)`", key.partition(":")[0])
    assert keys, name
    assert set(keys) <= set(Generate.__struct_fields__), name


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_pipeline_parameters_tensor_inputs_of_a_family_stand_in_the_table(family: Any, request: pytest.FixtureRequest):
    from timbred.models import checkpoint

    folder = request.getfixturevalue(family.name.replace("-", "_"))
    inputs = checkpoint.read_tensor_inputs(checkpoint.inspect(folder, "tiny", ""), "tiny", 1.0)
    shorts = {SHORT_NAMES[name] for name in family.pipelines}
    listed = {name for name, row, key in ROWS if key == "`embeddings`" and shorts & set(row.split())}
    assert set(inputs) == listed
