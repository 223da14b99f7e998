"""Both halves of each family's declaration agree, and nothing else knows a family by its name."""

import inspect
import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import transformers

import timbred
from timbred.engine.diffusion.sampler import SCHEDULERS
from timbred.engine.families.base import FamilySpec
from timbred.engine.model_manager import spec_of
from timbred.models.families import FAMILIES, STAGES, Family

PACKAGE = Path(timbred.__file__).parent
DECLARED_IN = ("models/families.py", "engine/families/")


def name_of(item: Any) -> str:
    return item.facts.name if isinstance(item, FamilySpec) else item.name


@pytest.fixture(params=[spec_of(family) for family in FAMILIES], ids=name_of)
def spec(request: pytest.FixtureRequest) -> FamilySpec:
    return request.param


@pytest.mark.parametrize("family", FAMILIES, ids=name_of)
def test_family_has_declaration_in_engine(family: Family):
    assert spec_of(family).facts is family


def test_spec_names_pipeline_of_its_family(spec: FamilySpec):
    assert spec.pipeline_class.__name__ in spec.facts.pipelines


def test_spec_pipeline_takes_exactly_the_declared_components(spec: FamilySpec):
    parameters = inspect.signature(spec.pipeline_class.__init__).parameters
    assert set(parameters) - {"self"} == set(spec.facts.components)


def test_spec_component_classes_exist(spec: FamilySpec):
    for name, component in spec.facts.components.items():
        for kind in component.classes:
            known = kind in spec.own_classes or hasattr(transformers, kind) or hasattr(diffusers, kind)
            assert known, f"{name}: {kind}"


def test_stages_hold_every_component_with_weights(spec: FamilySpec):
    staged = [part for stage in STAGES for part in spec.facts.stage_parts(stage)]
    assert sorted(staged) == sorted(spec.facts.weighted)
    assert spec.denoiser in spec.facts.stage_parts("denoiser")
    assert all(spec.facts.stage_parts(stage) for stage in STAGES)


def test_schedulers_exist(spec: FamilySpec):
    for name in spec.facts.schedulers:
        assert hasattr(diffusers, SCHEDULERS[name][0]), name


def test_spec_name_is_read_by_no_module_outside_declarations():
    """Outside the declarations a family's name stands in texts only."""
    asking = re.compile(r"family\.name|facts\.name")
    modules = (path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
    others = [module for module in modules if not module.startswith(DECLARED_IN)]
    assert len(others) > 100
    assert [module for module in others if asking.search((PACKAGE / module).read_text("utf-8"))] == []
