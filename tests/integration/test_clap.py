"""The real engine with a tiny CLAP beside models of two families: takes in its order, and without it as they come."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import clients
from tests.integration.clients import UdpClient, new_id
from tests.integration.daemons import DaemonProcess, start_real_engine, write_checkpoints
from tests.integration.osc import Reply

SOUND_S = 0.3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    families = {"older": "audioldm", "clap": "clap", "three": "stable_audio_3"}
    return write_checkpoints(tmp_path_factory.mktemp("models"), **families)


@pytest.fixture(scope="module")
def daemon(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with the component."""
    started = start_real_engine(
        tmp_path_factory.mktemp("with"), {name: models / name for name in ("three", "older", "clap")}
    )
    yield started
    started.stop()


@pytest.fixture(scope="module")
def daemon_without(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon without it."""
    started = start_real_engine(
        tmp_path_factory.mktemp("without"), {name: models / name for name in ("three", "older")}
    )
    yield started
    started.stop()


@pytest.fixture
def performer(daemon: DaemonProcess) -> Iterator[UdpClient]:
    with clients.udp(daemon.osc) as client:
        yield client


@pytest.fixture
def performer_without(daemon_without: DaemonProcess) -> Iterator[UdpClient]:
    with clients.udp(daemon_without.osc) as client:
        yield client


def render(client: UdpClient, *words: str | float) -> list[Reply]:
    name = new_id()
    client.say("generate", name, *words, "@seconds", SOUND_S, "@steps", 2)
    return client.until_end(name)


def takes_of(events: list[Reply]) -> list[Reply]:
    return [event for event in events if event.name == "take"]


@pytest.mark.parametrize("model", ["three", "older"])
def test_clap_ranks_takes_of_every_family(performer: UdpClient, model: str) -> None:
    events = render(performer, "bell", "@model", model, "@takes", 3, "@seed", 5)
    assert events[-1].name == "done", events[-1]
    assert "warning" not in {event.name for event in events}
    scores = [float(event.arguments[7]) for event in takes_of(events)]
    assert len(scores) == 3
    assert all(scores)
    assert scores == sorted(scores, reverse=True)


def test_clap_indexes_takes_of_all_families_for_takes_like(performer: UdpClient) -> None:
    bell, gong, hat = (
        takes_of(render(performer, words, "@model", model, "@seed", 5))[0].arguments[8]
        for words, model in (("bell", "three"), ("gong", "older"), ("hat", "three"))
    )
    performer.until_alike(bell, gong, hat)  # they share no word


def test_clap_is_refused_as_a_model(performer: UdpClient) -> None:
    for words in (("generate", "as model", "bell", "@model", "clap"), ("load", "clap")):
        performer.say(*words)
        failed = performer.until("fail")[-1]
        assert failed.arguments[1] == "bad-request"
        assert "clap is a component that ranks takes" in str(failed.arguments[2])


def test_clap_that_is_absent_is_reported_once(daemon_without: DaemonProcess, performer_without: UdpClient) -> None:
    single = render(performer_without, "bell", "@model", "three")
    assert "there is no CLAP" not in daemon_without.log.read_text("utf-8")
    several = [
        render(performer_without, "bell", "@model", model, "@takes", 2, "@seed", 5)
        for model in ("three", "three", "older")
    ]
    assert "warning" not in {event.name for events in (single, *several) for event in events}
    for events in several:
        assert [event.arguments[6] for event in takes_of(events)] == [5, 6]
        assert {event.arguments[7] for event in takes_of(events)} == {0.0}
    log = daemon_without.log.read_text("utf-8")
    assert log.count("the takes of three aren't ranked: there is no CLAP; add it with: timbred models pull clap") == 1
    assert log.count("there is no CLAP") == 1


def test_clap_that_is_absent_can_not_be_asked_for(performer_without: UdpClient) -> None:
    failed = render(performer_without, "bell", "@model", "three", "@takes", 2, "@rank", 1)[-1]
    assert (failed.name, failed.arguments[1]) == ("fail", "bad-request")
    assert str(failed.arguments[2]).startswith("rank: there is no CLAP to compare sounds of three with words")
