"""The panel in a real browser, against the real daemon: what a musician does with it, by keys alone."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import soundfile

from tests.integration import clients
from tests.patience import TIMEOUT_S
from tests.web.browser import CTRL, SHIFT, Page
from tests.web.conftest import OLD_TAKES, Restartable, make_sound
from timbred.models.registry import build
from timbred.protocol.keys import SchedulerName

LIT = """(() => { const canvas = $('%s'); const { width, height } = canvas;
    const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;
    let lit = 0; for (let at = 0; at < data.length; at += 4) lit += data[at] + data[at + 1] + data[at + 2] > 240;
    return lit / (width * height); })()"""
"""The part of a canvas that is bright."""

SAID_WITHIN_S = 2.0
"""Seconds in which the page says that the daemon doesn't answer."""


def test_panel_makes_a_typed_prompt_a_sound_seen_and_heard(page: Page, running: Restartable) -> None:
    page.run(
        "(window.seen = [], timbred.requests.on('change', (job) => window.seen.push("
        "[job.state, job.step, document.querySelector('.card [role=progressbar]')?.getAttribute('aria-valuetext')])))"
    )
    page.run("timbred.composer.fields.get('seconds').value = 5")
    page.press("p")
    assert page.run("document.activeElement.id") == "prompt"
    page.type("warm pad")
    page.press("Enter")
    page.until("timbred.takeView.take?.prompt === 'warm pad' && timbred.takeView.shown && !timbred.takeView.job")
    states = [state for state, _, _ in page.run("window.seen")]
    assert sorted(set(states), key=states.index) == ["asked", "queued", "started", "done"]
    assert any(text and text.startswith("step ") for _, _, text in page.run("window.seen"))
    assert page.run("timbred.requests.jobs.values().next().value.preview").endswith(".wav")

    assert page.text("#takes li:first-child .prompt") == "warm pad"
    assert page.run("$('#takes li:first-child').classList.contains('chosen')")
    assert 0.005 < page.run(LIT % ".wave") < 0.9
    assert 0.0005 < page.run(LIT % ".spectrum") < 0.9
    assert page.run(LIT % ".noise") == 0
    page.until((LIT % "#takes li:first-child .thumbnail") + " > 0.02")

    path = page.run("timbred.takeView.take.path")
    assert page.text("#path") == path
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    seen = page.run("[timbred.takeView.shown.rate, [...timbred.takeView.shown.channels[0]]]")
    assert seen[0] == rate
    assert np.array_equal(np.array(seen[1], np.float32), samples[:, 0])

    page.press("Escape")
    page.press("o")  # it sounds until it is paused
    page.press(" ")
    page.until("timbred.takeView.player.playing && timbred.takeView.player.position > 0.1")
    assert page.until("timbred.takeView.player.level") > 0.1
    received = page.run("[...timbred.takeView.player.source.buffer.getChannelData(0)]")
    assert np.array_equal(np.array(received, np.float32), samples[:, 0])
    page.press(" ")
    page.until("!timbred.takeView.player.playing")
    assert 0 < page.run("timbred.takeView.player.position") < 5
    page.run("timbred.takeView.player.loop(false)")
    assert page.run("$('#listen').getAttribute('aria-label')") == "Listen"
    page.run("$('#scope').focus()")
    page.press("Home")
    page.press("ArrowRight")
    assert page.run("timbred.takeView.player.position") == pytest.approx(0.1)


def test_panel_sends_keys_as_they_were_set(page: Page) -> None:
    page.press("p")
    page.type("keys ")
    page.run("(timbred.composer.fields.get('seconds').value = undefined, $('[data-key=seconds] input').focus())")
    page.press("ArrowUp")
    stepped = page.run("timbred.composer.fields.get('seconds').value")
    assert stepped == page.run("timbred.models.models.get('hollow').default_seconds") + 0.5
    page.run("timbred.composer.fields.get('seconds').value = 0.3")
    page.run("timbred.composer.fields.get('format').value = 'aiff'")
    page.run("timbred.composer.fields.get('channels').value = 2")
    page.run("timbred.composer.fields.get('loop').value = true")
    page.run("$('#prompt').focus()")
    page.press("Enter")
    page.until("timbred.takeView.take?.prompt === 'keys' && timbred.takeView.shown")
    take = page.run("timbred.takeView.take")
    assert take["name"].endswith(".aiff")
    assert (take["channels"], take["recipe"]["parameters"]["loop"]) == (2, True)
    samples, _ = soundfile.read(take["path"], dtype="float32", always_2d=True)
    seen = page.run("timbred.takeView.shown.channels.map((one) => [...one])")
    assert np.array_equal(np.array(seen, np.float32), samples.T)


def test_panel_offers_every_key_of_generate_with_its_range(page: Page) -> None:
    declared = page.run("fetch('/schema.json').then((a) => a.json()).then((s) => s.$defs['request.generate'])")
    offered = page.run("$$('#composer [data-key]').map((one) => one.dataset.key)")
    assert sorted(offered) == sorted(set(declared["properties"]) - {"type", "id", "prompt", "inline"})
    longest = page.run("timbred.models.models.get('hollow').max_seconds")
    field = "$('[data-key=seconds] input').getAttribute"
    assert page.run(f"[{field}('aria-valuemin'), {field}('aria-valuemax')]") == ["0.05", f"{longest:g}"]
    assert page.run("$('[data-key=strength] input').getAttribute('aria-valuemax')") == "1"
    assert page.run("[...$('[data-key=scheduler] select').options].length") == 1 + len(get_args(SchedulerName))


def test_panel_shows_a_guidance_of_zero(page: Page) -> None:
    make_sound(page, "unguided")
    page.run("timbred.takeView.describe({ ...timbred.takeView.take, recipe: { parameters: { guidance: 0 } } })")
    assert page.run("timbred.takeView.about.textContent").endswith("guidance 0")
    shown = page.run(
        "import('/panel/schema.js').then(({ fallback }) => [0, 2.5, undefined].map((guidance) =>"
        " fallback({ name: 'guidance', kind: 'number', low: 0, fallback: `the model's` }, { guidance })))"
    )
    assert shown == ["0", "2.5", "the model's"]


@pytest.fixture
def words(page: Page) -> Iterator[Page]:
    """The page with the words of the embedded model."""
    page.run("(timbred.composer.fields.get('model').value = 'pocket', timbred.composer.applyModel())")
    page.until("$$('#known-words .word-group').length > 1")
    page.run("$('#known-words').open = true")
    yield page
    page.run("($('#known-words').open = false, timbred.composer.fields.get('model').value = '')")
    page.run("timbred.composer.applyModel()")


def test_panel_lists_the_words_of_a_model_by_group(words: Page) -> None:
    assert words.text("#known-words summary") == "Words that pocket knows"
    listed = words.run(
        "$$('#known-words .word-group').map((one) => [one.querySelector('h3').textContent,"
        " [...one.querySelectorAll('button')].map((button) => button.textContent)])"
    )
    card = build(Path("/nowhere"), {})["pocket"].card
    assert listed == [[group, list(names)] for group, names in {**card.known_kinds(), **card.known_words()}.items()]
    words.run("$('#prompt').value = 'kick'")
    words.run("$$('#known-words .word-group').at(-1).querySelector('button').click()")
    assert words.run("$('#prompt').value") == f"kick {next(reversed(listed))[1][0]}"


def test_panel_words_fit_a_phone(words: Page) -> None:
    words.size(320, 800, phone=True)
    words.press("p")
    words.type("re")
    assert words.run("$$('#completions li').length") > 1
    assert words.run("document.documentElement.scrollWidth") <= 320
    heights = words.run("$$('#known-words button').map((one) => one.getBoundingClientRect().height)")
    assert min(heights) >= 24


def test_panel_renders_and_plays_a_kind_that_is_clicked(words: Page) -> None:
    kind = words.text("#known-words .word-group button")
    assert not words.run("timbred.takeView.autoplay")
    words.click("#known-words .word-group button")
    words.until(f"timbred.takeView.take?.prompt === {json.dumps(kind)} && timbred.takeView.player.playing")
    assert words.run("timbred.takeView.take.model") == "pocket"
    words.run("timbred.takeView.player.stop()")


def test_panel_completes_words_in_the_prompt(words: Page) -> None:
    words.press("p")
    words.type("soft ki")
    offered = words.run("$$('#completions li').map((one) => one.textContent)")
    assert "kick" in offered
    assert all(word.startswith(("ki", "soft ki")) for word in offered)
    words.press("ArrowDown")
    assert words.run("$('#prompt').getAttribute('aria-activedescendant')") == "completion-0"
    words.press("Escape")
    assert words.run("$('#completions').hidden")
    assert words.run("document.activeElement.id") == "prompt"
    words.press("c")
    words.press("Tab")
    assert words.run("[$('#prompt').value, document.activeElement.id]") == ["soft kick", "prompt"]
    assert words.run("$('#prompt').getAttribute('aria-expanded')") == "false"
    words.type(" zzz")
    assert words.run("$('#completions').hidden")


def test_panel_says_what_the_model_does_not_know(page: Page) -> None:
    for share, text in (("0.05", "nearest sound: hollow doesn't know this"), ("0.5", "hollow knows 50 % of this")):
        make_sound(page, f"knows {share}")
        assert page.text("#known") == text
    make_sound(page, "knows 0.9")
    assert page.text("#known") == ""


def test_panel_makes_variations_with_a_locked_seed(page: Page) -> None:
    first = make_sound(page, "vary me")
    seed = page.run("timbred.takeView.take.seed")
    page.press("v")
    page.until(f"timbred.takeView.take.take_id !== '{first}' && timbred.takeView.shown")
    assert page.run("timbred.takeView.take.seed") != seed
    assert page.run("timbred.takeView.take.prompt") == "vary me"

    kept = page.run("timbred.takeView.take.seed")
    page.press("l")
    assert page.run("$('#seed-lock').getAttribute('aria-pressed')") == "true"
    page.press("v")
    page.until("document.activeElement.id === 'prompt'")
    assert "Varying vary me" in page.text("#composer")
    page.press("End")
    page.type(" slowly")
    page.press("Enter")
    page.until("timbred.takeView.take.prompt === 'vary me slowly' && timbred.takeView.shown")
    assert page.run("timbred.takeView.take.seed") == kept


def test_panel_inpaints_a_marked_part(page: Page) -> None:
    take = make_sound(page, "paint over me")
    box = page.run("(({ x, y, width, height }) => [x, y, width, height])($('.spectrogram').getBoundingClientRect())")
    x, y, width, height = box
    page.drag((x + width / 4, y + height / 4), (x + width * 3 / 4, y + height * 3 / 4), SHIFT)
    fields = page.run(
        "Object.fromEntries(['init', 'start', 'end', 'low', 'high']"
        ".map((name) => [name, timbred.composer.fields.get(name).value]))"
    )
    seconds = page.run("timbred.takeView.take.seconds")
    assert fields["init"] == take
    assert fields["start"] == pytest.approx(seconds / 4, abs=seconds / width + 0.01)
    assert fields["end"] == pytest.approx(seconds * 3 / 4, abs=seconds / width + 0.01)
    assert fields["low"] == pytest.approx(40 * 600**0.25, rel=0.06)
    assert fields["high"] == pytest.approx(40 * 600**0.75, rel=0.06)
    assert "From the sound of paint over me" in page.text("#composer")
    page.run("$('#prompt').value = ''")
    page.type("a bell in the middle")
    page.press("Enter")
    page.until("timbred.takeView.take.prompt === 'a bell in the middle' && timbred.takeView.shown")
    parameters = page.run("timbred.takeView.take.recipe.parameters")
    assert {name: parameters[name] for name in fields} == fields
    page.press("Escape")
    page.press("r")
    assert page.run("document.activeElement.id") == "prompt"
    assert page.run("timbred.composer.fields.get('start').value") is None
    page.run("timbred.composer.startFresh()")
    assert page.run("timbred.composer.fields.get('init').value") is None


def test_panel_keeps_a_star_after_a_reload(page: Page) -> None:
    take = make_sound(page, "a sound to keep")
    page.press("s")
    page.until("timbred.takeView.take.starred && $('#take-view .star').getAttribute('aria-pressed') === 'true'")
    page.reload()
    page.until(f"$('#takes li[data-take={take}] .star')?.getAttribute('aria-pressed') === 'true'")
    page.click("#only-starred")
    page.until("$$('#takes li').length === 1")
    assert page.text("#takes .prompt") == "a sound to keep"
    page.click("#takes .star")
    page.until(f"!$('#takes li[data-take={take}] .star[aria-pressed=true]')")
    page.click("#only-starred")
    page.until(f"$$('#takes li').length === 60 && !$('#takes li[data-take={take}] .star[aria-pressed=true]')")


def test_panel_keeps_rows_and_stars_through_a_refresh(page: Page) -> None:
    """A refresh while a star is removed: neither the row, nor the focus, nor the star's new state is lost."""
    take = make_sound(page, "a star beside a refresh")
    row = f"$('#takes li[data-take={take}]')"
    page.run(f"(window.row = {row}, window.row.querySelector('.star').focus())")
    page.run("Promise.all([timbred.star(timbred.takeView.take), timbred.history.refresh()])")
    page.until(f"!timbred.history.refreshing && {row}.querySelector('.star').getAttribute('aria-pressed') === 'true'")
    assert page.run(f"{row} === window.row && document.activeElement === window.row.querySelector('.star')")
    order = page.run("[...$('#takes').children].map((one) => one.dataset.take)")
    assert order == page.run("[...timbred.history.rows.keys()]")
    # a response that was read before the change comes after it
    page.run(
        "(window.pageNow = timbred.history.page, timbred.history.page = (before) => new Promise((done) => {"
        " window.answer = async () => done(window.late ??= await window.pageNow.call(timbred.history, before)); }))"
    )
    page.run("(timbred.history.refresh(), window.answerLate = window.answer, 0)")
    page.run("window.pageNow.call(timbred.history, null).then((page) => { window.late = page; })")
    page.run("(timbred.history.page = window.pageNow, timbred.star(timbred.takeView.take))")
    page.run("window.answerLate()")
    page.until(f"!timbred.history.refreshing && {row}.querySelector('.star').getAttribute('aria-pressed') === 'false'")
    assert not page.run(f"timbred.history.rows.get('{take}').take.starred")


def test_panel_searches_the_history_by_words_and_likeness(page: Page) -> None:
    make_sound(page, "glass harmonica in rain")
    page.press("/")
    assert page.run("document.activeElement.id") == "search"
    page.type("glass harm")
    page.until("$$('#takes li').length === 1 && $('#takes .prompt').textContent === 'glass harmonica in rain'")
    page.type("zzz")
    page.until("$$('#takes li').length === 0")
    assert 'No take\'s prompt contains the words "glass harmzzz"' in page.text("#history")
    page.run("(timbred.history.search.value = '', timbred.history.refresh())")
    page.press("Escape")
    make_sound(page, "glass bells in snow")
    page.press("a")
    page.until("timbred.history.like && $('#takes .prompt')?.textContent === 'glass harmonica in rain'")
    assert "Like glass bells in snow" in page.text("#history")
    assert page.run("$$('#takes li').length") < OLD_TAKES


def test_panel_loads_thousands_of_takes_page_by_page(page: Page) -> None:
    page.run("(timbred.history.search.value = 'old sound', timbred.history.refresh())")
    page.until(f"$('.total').textContent === '{OLD_TAKES:,} takes with \"old sound\"'")
    assert page.run("$$('#takes li').length") <= 120
    page.run("$('#takes .choose[tabindex=\"0\"]').focus()")
    for rows in (60, 120, 180):
        page.press("End")
        page.until(f"$$('#takes li').length > {rows}")
    prompts = page.run("$$('#takes .prompt').map((one) => one.textContent)")
    assert prompts == [f"old sound number {OLD_TAKES - 1 - n}" for n in range(len(prompts))]
    assert "The file is missing" in page.until("$('#take-failure').textContent")
    page.run("(timbred.history.search.value = '', timbred.history.refresh())")
    page.until("timbred.history.plain && $$('#takes li').length === 60")


def test_panel_moves_through_takes_by_arrows_and_letters(page: Page) -> None:
    make_sound(page, "first of two")
    make_sound(page, "second of two")
    page.press("j")
    page.until("timbred.takeView.take.prompt === 'first of two'")
    page.press("k")
    page.until("timbred.takeView.take.prompt === 'second of two'")
    page.run("$('#takes .choose[tabindex=\"0\"]').focus()")
    page.press("ArrowDown")
    page.until("timbred.takeView.take.prompt === 'first of two'")
    assert page.run("document.activeElement.textContent").startswith("first of two")


def test_panel_cancels_a_running_request(page: Page) -> None:
    page.press("p")
    page.type("slow one")
    page.press("Enter")
    page.until("timbred.requests.live[0]?.step >= 1")
    assert "slow one" in page.text("#active-requests")
    assert page.run(LIT % ".noise") > 0.01
    page.press("Escape")
    page.watch(".card[data-state=cancelled]")
    page.press("x")
    page.until_seen()
    page.until("!$('.card')")


def test_panel_stops_all_while_typing(page: Page) -> None:
    make_sound(page, "something to stop")
    page.press("o")
    page.press(" ")
    page.until("timbred.takeView.player.playing")
    page.press("p")
    for words in ("slow and first", "slow and second"):
        page.run("$('#prompt').value = ''")
        page.type(words)
        page.press("Enter")
    page.until("timbred.requests.live.length === 2 && timbred.requests.live.some((job) => job.step >= 1)")
    page.run("(window.liveBefore = [...timbred.requests.live], 0)")  # the panel soon forgets what was cancelled
    page.press(".", CTRL)
    page.until("!timbred.requests.live.length && !timbred.takeView.player.playing")
    assert page.run("window.liveBefore.map((job) => job.state)") == ["cancelled"] * 2
    page.run("timbred.takeView.player.loop(false)")


def test_panel_shows_each_failure_where_it_happened(page: Page) -> None:
    page.press("p")
    page.type("too long")
    page.run("timbred.composer.fields.get('seconds').value = 5000")
    page.press("Enter")
    page.until("$('.card[data-state=failed]')")
    assert "bad-request: seconds: got 5000" in page.text("#active-requests")
    assert "seconds: got 5000" in page.text("[data-key=seconds] .failure")
    assert page.run("document.activeElement.name") == "seconds"
    assert "seconds: got 5000" in page.text("#urgent-announcements")
    page.run("timbred.composer.reset()")

    page.run("(timbred.requests.forget([...timbred.requests.jobs.values()].at(-1)), $('#prompt').focus())")
    page.run("$('#prompt').value = ''")
    page.type("fail please")
    page.press("Enter")
    page.until("$('.card[data-state=failed]')")
    assert "model-error: told to fail" in page.text("#active-requests")
    page.press("Escape")

    make_sound(page, "to be played")
    page.press("b")
    page.until("$('#voices-failure').textContent")
    assert page.text("#voices-failure").startswith("no-audio-device: ")
    page.run("(timbred.voices.fields.get('voice').value = 99, timbred.voices.play(timbred.takeView.take))")
    page.until("$('#voices [data-key=voice] .failure').textContent.includes('99')")

    page.press("2")
    page.run("$('[data-model=audioldm2] .row button').click()")
    page.until("$('[data-model=audioldm2] .failure').textContent.startsWith('missing-weights: ')")

    page.press("Escape")
    page.run("document.activeElement.blur()")
    page.press("t")
    page.run("$('#tempo input').value = ''")
    page.type("5000")
    page.press("Enter")
    page.until("$('#tempo .failure').textContent.includes('5000')")


def test_panel_loads_and_unloads_models(page: Page) -> None:
    page.press("2")
    page.until("$('[data-model=hollow]')?.dataset.state === 'resident'")
    assert "default" in page.text("[data-model=hollow]")
    page.run("$('[data-model=hollow] [aria-label^=Unload]').focus()")
    page.press("Enter")
    page.until("$('[data-model=hollow]').dataset.state === 'available'")
    page.run("$('[data-model=hollow] [aria-label^=Load]').focus()")
    page.press(" ")
    page.until("$('[data-model=hollow]').dataset.state === 'resident'")
    assert "3 MB" in page.text("[data-model=hollow]")


def test_panel_lists_engines(page: Page) -> None:
    page.press("2")
    page.until("$('[data-engine=\"1\"]')?.dataset.state === 'up'")
    page.until("$('[data-engine=\"1\"]').textContent.includes('in memory: hollow')")
    assert "Engine 1: cpu" in page.text("[data-engine]")


def test_panel_sets_the_tempo(page: Page) -> None:
    page.press("t")
    page.run("$('#tempo input').value = ''")
    page.type("97.5")
    page.press("Enter")
    page.until("timbred.tempo.now === 97.5 && !$('#tempo .failure').textContent")


def test_panel_shows_requests_of_other_clients(page: Page, running: Restartable) -> None:
    with clients.udp(running.now.osc) as other:
        take = other.make_take("from another place")
    page.until("$('#takes .prompt').textContent === 'from another place'")
    page.press("4")
    line = page.until(f"$$('#lines li').find((one) => one.textContent.includes('{take.id}: done'))?.textContent")
    assert "from-another-place" in line


def test_panel_drags_a_take_as_its_file(page: Page) -> None:
    take = make_sound(page, "drag me out")
    carried = page.run(
        "(() => { const event = new DragEvent('dragstart', { dataTransfer: new DataTransfer(), cancelable: true });"
        " $('#drag').dispatchEvent(event);"
        " return Object.fromEntries([...event.dataTransfer.types].map((one) => [one, event.dataTransfer.getData(one)]))"
        " })()"
    )
    path = Path(page.run("timbred.takeView.take.path"))
    assert carried["text/plain"] == str(path)
    assert carried["text/uri-list"] == path.as_uri()
    kind, name, address = carried["downloadurl"].split(":", 2)
    assert (kind, name) == ("audio/wav", path.name)
    assert address.startswith("http://127.0.0.1:")
    assert take in address
    notifications = page.run(
        f"fetch({json.dumps(address)}).then(async (a) => [a.headers.get('content-disposition'), "
        "[...new Uint8Array(await a.arrayBuffer())]])"
    )
    assert notifications[0] == f'attachment; filename="{path.name}"'
    assert bytes(notifications[1]) == path.read_bytes()


# ---- the daemon goes and comes


def test_panel_recovers_from_a_lost_connection(page: Page) -> None:
    before = page.run("timbred.history.known")
    page.press("p")
    page.type("slow through a lost line")
    page.press("Enter")
    page.until("timbred.requests.live[0]?.step >= 1")
    page.run(
        "(window.lostSockets = 0, [timbred.own, timbred.allClients].forEach(({ socket }) => {"
        " socket.addEventListener('close', () => { window.lostSockets += 1; }); socket.close(); }))"
    )
    page.until("window.lostSockets === 2 && timbred.own.open && timbred.allClients.open")
    page.press("Escape")
    page.until("timbred.requests.live[0]?.state === 'started'")
    page.watch(".card[data-state=cancelled]")
    page.press("x")
    page.until_seen()
    assert page.run("timbred.history.known") == before


def test_panel_keeps_a_request_after_a_reload(page: Page) -> None:
    page.press("p")
    page.type("slow through a reload")
    page.press("Enter")
    page.until("timbred.requests.live[0]?.step >= 1")
    page.reload()
    page.until(
        "timbred.requests.live[0]?.title === 'slow through a reload' && timbred.requests.live[0].state === 'started'"
    )
    page.press("Escape")
    page.run("document.activeElement.blur()")
    page.press("X", SHIFT)
    page.until("!timbred.requests.live.length")


def test_panel_in_a_copied_tab_is_another_client(page: Page, running: Restartable) -> None:
    name = page.run("timbred.own.client")
    with page.copied() as copy:
        copy.open(running.address)
        assert copy.run("JSON.parse(sessionStorage['timbred.client'])") == copy.run("timbred.own.client") != name
        assert page.run("timbred.own.open")
        assert copy.troubles() == []


def test_panel_reports_a_daemon_that_does_not_answer_within_two_seconds(page: Page, running: Restartable) -> None:
    page.until("$('#connection-alert').hidden")
    running.now.process.send_signal(signal.SIGSTOP)
    try:
        page.until("document.body.dataset.connection === 'silent' && !$('#connection-alert').hidden")
    finally:
        running.now.process.send_signal(signal.SIGCONT)
    times = page.run(
        "import('/panel/connection.js').then((m) => m.PING_INTERVAL_MS + m.SILENT_AFTER_MS + m.CHECK_INTERVAL_MS)"
    )
    assert times < 1000 * SAID_WITHIN_S
    page.until("timbred.own.open && $('#connection-alert').hidden")


def test_panel_recovers_when_the_daemon_returns(page: Page, running: Restartable) -> None:
    take = make_sound(page, "before the end")
    page.press("p")
    page.run("$('#prompt').value = ''")
    page.type("slow when it ends")
    page.press("Enter")
    page.until("timbred.requests.live[0]?.step >= 1")
    running.now.process.kill()
    page.until("document.body.dataset.connection === 'closed' && !$('#connection-alert').hidden")
    assert "timbred isn't running" in page.text("#connection-alert")
    page.run("$('#prompt').value = 'asked of nobody'")
    page.press("Enter")
    page.until("$('#prompt-failure').textContent")
    assert page.run("$('#prompt').value") == "asked of nobody"
    assert running.now.process.wait(TIMEOUT_S) == -signal.SIGKILL
    running.end_by_force()
    running.start()
    page.until("timbred.own.open && timbred.allClients.open && $('#connection-alert').hidden")
    page.until("$('.card[data-state=lost]')")
    assert "press Again" in page.text(".card[data-state=lost]")
    page.until(f"$('#takes li[data-take={take}]')")
    page.run("document.activeElement.blur()")
    make_sound(page, "after the end")
