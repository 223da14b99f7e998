"""What is cancelled ends at once, and nothing else does."""

import time

from tests.integration.clients import SOUND, UdpClient, hold_engine, let_go, new_id, order
from tests.integration.daemons import DaemonProcess
from tests.integration.osc import Reply


def test_cancel_ends_a_waiting_request(client: UdpClient, other: UdpClient, daemon: DaemonProcess) -> None:
    hold_engine(other, "in front")
    client.say("generate", "waiting", "cancelled early", "@steps", 1)
    assert client.receive().name == "queued"
    assert client.ask("cancel", "waiting") == Reply("cancelled", "s", ("waiting",))
    client.nothing_more()
    let_go(other, "in front")
    client.nothing_more()
    assert not list(daemon.takes.glob("cancelled-early*"))


def test_cancel_ends_a_running_request(client: UdpClient) -> None:
    hold_engine(client, "running")
    client.say("cancel", "running")
    assert order(client.until_end()) == ["cancelled"]
    client.nothing_more()


def test_cancel_ends_a_request_whose_steps_are_done(client: UdpClient, daemon: DaemonProcess) -> None:
    """Nothing is left of it, and the next file has the first number."""
    name = new_id()
    client.say("generate", name, "decodes never-there", "@steps", 1, "@seconds", 0.2, "@name", "all but done")
    client.until_step()
    client.say("cancel", name)
    assert order(client.until_end(name)) == ["cancelled"]
    client.nothing_more()
    assert not list(daemon.takes.glob("all-but-done*"))
    take = client.make_take("pad", "@name", "all but done")
    assert str(take.arguments[2]).endswith("all-but-done-0001.wav")
    while list(daemon.takes.rglob("*.part")):
        time.sleep(0.05)


def test_cancel_of_all_ends_only_this_clients_requests(client: UdpClient, other: UdpClient) -> None:
    hold_engine(client, "all-1")
    other.say("generate", "kept", "pad", "@seconds", 0.2, "@steps", 1)
    assert other.receive().name == "queued"
    for name in ("all-2", "all-3"):
        assert client.ask("generate", name, "pad").name == "queued"
    client.say("cancel", "*")
    assert {client.receive() for _ in range(3)} == {Reply("cancelled", "s", (f"all-{number}",)) for number in (1, 2, 3)}
    assert order(other.until_end("kept")) == SOUND[1:]
    client.nothing_more()


def test_cancel_of_an_unknown_id_is_answered(client: UdpClient) -> None:
    answer = client.ask("cancel", "never asked")
    assert (answer.name, answer.arguments[1]) == ("fail", "bad-request")
    assert "never asked" in str(answer.arguments[2])


def test_cancel_of_an_ended_request_sends_no_second_end(client: UdpClient) -> None:
    name = new_id()
    client.say("generate", name, "pad", "@seconds", 0.2, "@steps", 1)
    client.until_end(name)
    answer = client.ask("cancel", name)
    assert answer.arguments[:2] == ("cancel", "bad-request"), "the request has had its one terminal event already"
    client.nothing_more()


def test_cancel_ends_a_variation_right_after_its_request(client: UdpClient) -> None:
    take = client.make_take("varied")
    name = new_id()
    client.say("vary", name, take.arguments[8], "slow", "@steps", 3)
    client.say("cancel", name)
    events = client.until_end(name)
    assert events[-1] == Reply("cancelled", "s", (name,)), "the cancel came after its request, so it ends it"
    client.nothing_more()
