"""The same id again is the same request: it is answered with where it stands, and never run twice."""

import pytest

from tests.integration.clients import SOUND, UdpClient, hold_engine, let_go, order
from tests.integration.daemons import DaemonProcess
from tests.integration.osc import Reply


@pytest.mark.usefixtures("idle")
def test_resends_of_a_waiting_request_are_answered_queued(client: UdpClient, other: UdpClient) -> None:
    hold_engine(other, "holding")
    client.say("generate", "waits", "pad", "@seconds", 0.2, "@steps", 1)
    first = client.receive()
    again = client.ask("generate", "waits", "pad", "@seconds", 0.2, "@steps", 1)
    assert (first.name, again.name) == ("queued", "queued")
    assert first.arguments[:2] == again.arguments[:2] == ("waits", 1)
    client.nothing_more()
    let_go(other, "holding")
    assert order(client.until_end()) == SOUND[1:]
    client.nothing_more()


def test_resends_of_a_running_request_are_answered_started(client: UdpClient) -> None:
    hold_engine(client, "runs")
    assert client.ask("generate", "runs", "slow", "@steps", 3) == Reply("started", "ss", ("runs", "hollow"))
    client.nothing_more()
    let_go(client, "runs")
    client.nothing_more()


def test_resends_of_an_ended_request_repeat_its_takes_and_end(client: UdpClient, daemon: DaemonProcess) -> None:
    client.say("generate", "over", "rare words", "@takes", 2, "@seconds", 0.2, "@steps", 1)
    events = client.until_end()
    takes, done = events[-3:-1], events[-1]
    client.say("generate", "over", "rare words", "@takes", 2, "@seconds", 0.2, "@steps", 1)
    assert client.until_end() == [*takes, done]
    client.nothing_more()
    assert len(list(daemon.takes.glob("rare-words*"))) == 2


def test_resends_of_a_failed_or_cancelled_request_repeat_that(client: UdpClient) -> None:
    client.say("generate", "fails", "fail")
    failure = client.until_end()[-1]
    assert failure.arguments[:2] == ("fails", "model-error")
    assert client.ask("generate", "fails", "fail") == failure
    hold_engine(client, "stopped")
    let_go(client, "stopped")
    assert client.ask("generate", "stopped", "slow", "@steps", 3) == Reply("cancelled", "s", ("stopped",))
    client.nothing_more()


@pytest.mark.usefixtures("idle")
def test_resends_of_a_vary_do_not_run_it_again(client: UdpClient, other: UdpClient, daemon: DaemonProcess) -> None:
    take = client.make_take("varied once")
    hold_engine(other, "holding")
    for _ in range(3):
        assert client.ask("vary", "variation", take.arguments[8], "@seed", 3).name == "queued"
    let_go(other, "holding")
    assert order(client.until_end()) == SOUND[1:]
    client.nothing_more()
    assert len(list(daemon.takes.glob("varied-once*"))) == 2


def test_resends_with_the_number_as_text_are_the_same_request(client: UdpClient) -> None:
    client.say("generate", 5, "pad", "@seconds", 0.2, "@steps", 1)
    done = client.until_end()[-1]
    client.say("generate", 5.0, "pad", "@seconds", 0.2, "@steps", 1)
    assert client.until_end()[-1] == done
    client.nothing_more()


def test_resends_of_a_changed_request_are_refused(client: UdpClient) -> None:
    client.say("generate", "same", "pad", "@seconds", 0.2, "@steps", 1)
    done = client.until_end()[-1]
    refused = client.ask("generate", "same", "bell", "@seconds", 0.3, "@seed", 4)
    assert (refused.name, *refused.arguments[:2]) == ("fail", "same", "bad-request")
    message = str(refused.arguments[2])
    for part in ("prompt was 'pad' and is 'bell'", "seconds was 0.2", "is 0.3", "seed was not given and is 4"):
        assert part in message
    varied = client.ask("vary", "same", "take")
    assert "was a generate before and is a vary now" in str(varied.arguments[2])
    client.say("generate", "same", "pad", "@seconds", 0.2, "@steps", "1")
    assert client.until_end()[-1] == done
    client.nothing_more()


def test_resends_of_a_changed_request_are_refused_while_it_runs(client: UdpClient) -> None:
    hold_engine(client, "busy")
    refused = client.ask("generate", "busy", "other words")
    assert refused.arguments[:2] == ("busy", "bad-request")
    let_go(client, "busy")
    client.nothing_more()


def test_resends_by_another_client_are_new_requests(client: UdpClient, other: UdpClient) -> None:
    paths: set[object] = set()
    for one in (client, other):
        one.say("generate", "mine", "pad", "@seconds", 0.2, "@steps", 1)
        events = one.until_end()
        assert order(events) == SOUND
        paths.add(events[-1].arguments[2])
    assert len(paths) == 2
