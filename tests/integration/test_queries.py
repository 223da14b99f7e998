"""Requests that make no sound: each is answered by what the protocol names, in that order."""

from pathlib import Path

import pytest

from tests.integration import clients
from tests.integration.clients import SOUND, UdpClient, hold_engine, let_go, order, until_idle
from tests.integration.conftest import StartDaemon
from tests.integration.osc import Reply


def test_ping_is_answered_by_pong(client: UdpClient) -> None:
    assert client.ask("ping") == Reply("pong", "", ())


def test_sync_is_answered_after_everything_before_it(client: UdpClient) -> None:
    for number in range(20):
        client.say("generate", f"s{number}", "")
    client.say("sync", 3)
    received = [client.receive() for _ in range(21)]
    assert [event.name for event in received] == ["fail"] * 20 + ["synced"]
    assert [event.id for event in received] == [*(f"s{number}" for number in range(20)), 3]


def test_sync_is_answered_after_a_variation(client: UdpClient) -> None:
    take = client.make_take("pad")
    client.say("vary", "before sync", take.arguments[8], "@steps", 1)
    client.say("sync", 4)
    names = [event.name for event in client.until("synced")]
    assert "queued" in names, "what was sent before the sync has been taken in when it is answered"
    if "done" not in names:
        client.until_end("before sync")


def test_status_is_answered_by_status_reply(client: UdpClient) -> None:
    client.make_take("pad")
    answer = until_idle(client)
    assert (answer.name, answer.tags) == ("status.reply", "iiiffiiif")
    queued, running, resident, used, total, voices, rate, underruns, uptime = answer.arguments
    assert (queued, running, resident, voices, rate, underruns) == (0, 0, 1, 0, 48000, 0)
    assert 0 <= float(used) <= float(total)
    assert float(uptime) > 0


def test_status_counts_waiting_and_running_requests(client: UdpClient) -> None:
    hold_engine(client, "counted-1")
    for name in ("counted-2", "counted-3"):
        assert client.ask("generate", name, "pad").name == "queued"
    assert client.ask("status").arguments[:2] == (2, 1)
    client.say("cancel", "*")
    assert [client.receive().name for _ in range(3)] == ["cancelled"] * 3


def test_models_are_listed(client: UdpClient) -> None:
    client.make_take("pad")
    client.say("models")
    models = [client.receive()]
    while models[-1].arguments[0] != "hollow":
        models.append(client.receive())
    client.nothing_more()
    assert {(event.name, event.tags) for event in models} == {("model", "ssiifsf")}
    named = {str(event.arguments[0]): event.arguments for event in models}
    assert named["hollow"][1:4] == ("resident", 16000, 1)
    assert named["hollow"][6] == pytest.approx(3.0)
    assert (named["audioldm2"][1], named["audioldm2"][5]) == ("missing", "CC-BY-NC-SA-4.0")
    assert "pocket" in named


def test_load_and_unload_are_answered(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("models.preload=0")
    with clients.udp(daemon.osc) as client:
        assert client.ask("load", "hollow") == Reply("loaded", "s", ("hollow",))
        assert client.ask("load", "hollow") == Reply("loaded", "s", ("hollow",))
        assert client.ask("unload", "hollow") == Reply("unloaded", "s", ("hollow",))
        assert client.ask("status").arguments[2] == 0
        client.say("generate", "by itself", "pad", "@seconds", 0.2, "@steps", 1)
        events = client.until_end()
        assert order(events) == SOUND
        assert (events[2].arguments[1], events[2].arguments[2]) == (0.0, 0), "step 0 while the model is loaded"


def test_load_of_an_unknown_model_is_refused(client: UdpClient) -> None:
    unknown = client.ask("load", "nothing-like-it")
    assert unknown.arguments[:2] == ("load", "unknown-model")
    assert "hollow" in str(unknown.arguments[2]), "it lists the names there are"
    missing = client.ask("load", "audioldm2")
    assert missing.arguments[:2] == ("load", "missing-weights")
    assert "timbred models pull audioldm2" in str(missing.arguments[2])
    assert client.ask("unload", "nothing-like-it").arguments[:2] == ("unload", "unknown-model")


def test_unload_of_a_model_in_use_is_refused(client: UdpClient) -> None:
    hold_engine(client, "using it")
    answer = client.ask("unload", "hollow")
    assert answer.arguments[:2] == ("unload", "bad-request")
    assert "using it" in str(answer.arguments[2])
    let_go(client, "using it")


def test_takes_are_found_by_their_words_newest_first(client: UdpClient) -> None:
    made = [client.make_take("glassy xylophone", word) for word in ("one", "two", "three")]
    client.make_take("something else")
    client.say("takes", "@search", "glassy", "xylophone")
    *found, done = client.until("done")
    assert {(event.name, event.tags) for event in found} == {("take", "sisfiiifs")}
    assert [event.arguments[8] for event in found] == [take.arguments[8] for take in reversed(made)]
    assert (done.tags, done.arguments[:2]) == ("sis", ("takes", 3))
    client.say("takes", "@limit", 2)
    assert order(client.until("done")) == ["take", "done"]
    client.say("takes", "@search", "wordsthatnobodysaid")
    assert client.receive() == Reply("done", "sis", ("takes", 0, ""))
    client.nothing_more()


def test_takes_are_found_by_likeness(client: UdpClient) -> None:
    first = client.make_take("hollow wooden knock")
    near = client.make_take("hollow wooden knock again")
    client.say("takes", "@like", first.arguments[8], "@limit", 3)
    events = client.until("done", "fail")
    assert events[-1].name == "done"
    assert near.arguments[8] in [event.arguments[8] for event in events[:-1]]


def test_takes_are_kept_after_a_restart(start_daemon: StartDaemon, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    first = start_daemon(f"takes.folder={folder}")
    with clients.udp(first.osc) as client:
        take = client.make_take("kept for later")
    first.stop()
    second = start_daemon(f"takes.folder={folder}")
    with clients.udp(second.osc) as client:
        client.say("takes")
        assert client.receive().arguments[8] == take.arguments[8]
        assert client.receive().name == "done"
        assert client.make_take("kept for later").arguments[2] != take.arguments[2]


def test_notify_sends_every_event(client: UdpClient, other: UdpClient) -> None:
    assert client.ask("notify", 1) == Reply("done", "s", ("notify",))
    other.say("generate", "overheard", "pad", "@seconds", 0.2, "@steps", 2)
    mine = other.until_end()
    assert order(mine) == SOUND
    assert [client.receive() for _ in mine] == mine
    client.nothing_more()
    assert client.ask("notify", 0) == Reply("done", "s", ("notify",))
    other.make_take("unheard")
    client.nothing_more()


def test_play_without_a_sound_device_is_refused(client: UdpClient) -> None:
    take = client.make_take("pad")
    assert client.ask("play", 1, take.arguments[8]).arguments[:2] == ("play", "no-audio-device")
    answer = client.ask("generate", "aloud", "pad", "@to", "play", "@voice", 1)
    assert answer.arguments[:2] == ("aloud", "no-audio-device")
    client.nothing_more()


def test_settings_are_read_and_changed(client: UdpClient) -> None:
    assert client.ask("settings/tempo") == Reply("settings/tempo", "f", (120.0,))
    assert client.ask("settings/tempo", 60.0) == Reply("settings/tempo", "f", (60.0,))
    client.say("generate", "slower", "pad", "@bars", 1, "@beats_per_bar", 1, "@steps", 1)
    *_, take, _ = client.until_end()
    assert take.arguments[3] == pytest.approx(1.0)
    assert client.ask("settings/tempo", 120) == Reply("settings/tempo", "f", (120.0,))
    client.nothing_more()


def test_settings_that_cannot_be_changed_are_refused(client: UdpClient) -> None:
    unknown = client.ask("settings/volume")
    assert unknown.arguments[1] == "bad-request"
    assert "volume" in str(unknown.arguments[2])
    refused = client.ask("settings/tempo", 5)
    assert refused.arguments[1] == "bad-request"
    assert "20" in str(refused.arguments[2])
    assert client.ask("settings/tempo") == Reply("settings/tempo", "f", (120.0,))


def test_tempo_is_what_bars_are_counted_in(client: UdpClient) -> None:
    client.say("tempo", 240.0)
    client.say("generate", "faster", "pad", "@bars", 1, "@beats_per_bar", 1, "@steps", 1)
    *_, take, done = client.until_end("faster")
    assert (take.name, done.name) == ("take", "done"), done
    assert take.arguments[3] == pytest.approx(0.25)
    client.say("tempo", 120.0)
