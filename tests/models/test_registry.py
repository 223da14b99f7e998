"""The cards of published models agree with their families."""

import pytest

from timbred.models.families import FAMILIES, POCKET, Family
from timbred.models.registry import PUBLISHED_CARDS, Card, pocket_card

CARDS = (pocket_card(), *PUBLISHED_CARDS)


def families_of(card: Card) -> list[Family]:
    return [
        family
        for family in (*FAMILIES, POCKET)
        if (family.capabilities, family.schedulers) == (card.capabilities, card.schedulers)
    ]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_card_has_the_capabilities_and_schedulers_of_a_family(card: Card):
    assert families_of(card)
    assert card.scheduler in card.schedulers


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_card_says_if_its_sounds_may_be_sold(card: Card):
    assert card.licence
    assert card.selling.split(":")[0].split(",")[0] in ("yes", "no", "unknown")


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_card_has_consistent_defaults(card: Card):
    assert card.min_seconds <= card.default_seconds <= card.max_seconds
    assert card.channels in (1, 2)
    assert card.steps >= 1
    assert not card.ranks or "rank" in card.capabilities
    assert not card.negative or "negative" in card.capabilities


def test_registry_cards_have_names_of_their_own():
    names = [card.name for card in CARDS]
    assert len(set(names)) == len(names)
    assert {"stable-audio-3-small-sfx", "stable-audio-open-1.0", "ace-step-1.5-turbo"} <= set(names)
