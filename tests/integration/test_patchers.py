"""Requests as patchers form them: Pd has only floats and symbols, Max has ints and quoted symbols."""

from pathlib import Path

from tests.integration.clients import SOUND, UdpClient, order
from tests.integration.osc import Reply


def test_patchers_pd_sends_everything_as_floats_and_symbols(client: UdpClient) -> None:
    client.say("generate", 7.0, "warm", "analog", 808.0, "pad", "@seconds", 0.5, "@steps", 2.0, "@seed", 40.0,
               "@takes", 2.0, "@loop", 1.0, "@peak", -3.0, "@rate", 44100.0, "@bits", 16.0)  # fmt: skip
    events = client.until_end()
    assert order(events) == SOUND
    assert {(event.id, event.tags[0]) for event in events} == {(7, "i")}
    takes = [event for event in events if event.name == "take"]
    assert [(take.arguments[4], take.arguments[6]) for take in takes] == [(44100, 40), (44100, 41)]
    assert "warm-analog-808-pad" in Path(str(events[-1].arguments[2])).name
    assert client.ask("sync", 3.0) == Reply("synced", "i", (3,))
    assert client.ask("notify", 0.0) == Reply("done", "s", ("notify",))
    client.say("takes", "@limit", 1.0, "@search", "warm", 808.0)
    assert order(client.until("done")) == ["take", "done"]
    assert client.ask("cancel", 99.0).arguments[:2] == ("cancel", "bad-request")


def test_patchers_pd_numbers_that_do_not_fit_a_key_are_refused(client: UdpClient) -> None:
    answer = client.ask("generate", 8.0, "pad", "@steps", 2.5)
    assert answer.arguments[:2] == (8, "bad-request")
    assert "2.5" in str(answer.arguments[2])


def test_patchers_max_sends_ints_and_symbols_with_spaces(client: UdpClient) -> None:
    client.say("generate", 21, "warm analog pad", "@seconds", 1, "@steps", 2, "@negative", "low quality", "@loop", 0)
    events = client.until_end()
    assert order(events) == SOUND
    assert events[-2].arguments[3] == 1.0
    client.say("generate", 22, "warm", "analog", 3, "pad", "@name", "a sound for Max", "@seconds", 1, "@steps", 2)
    assert "a-sound-for-max" in Path(str(client.until_end()[-1].arguments[2])).name.lower()


def test_patchers_touchdesigner_sends_numbers_as_text(client: UdpClient) -> None:
    client.say("generate", "t1", "rain on glass", "@seconds", "0.5", "@seed", "7", "@steps", "2", "@trim", "off")
    *_, take, done = client.until_end()
    assert (take.arguments[3], take.arguments[6], done.name) == (0.5, 7, "done")
