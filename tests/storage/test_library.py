"""The library: stored takes are found again, whatever is typed, whoever asks, whatever happened to the file."""

import logging
import shutil
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from timbred.audio import SampleRate, Seconds
from timbred.config import DEFAULT_LIBRARY_NAME
from timbred.errors import BadRequest, DiskFull, ForbiddenPath, Internal
from timbred.storage import database as opening
from timbred.storage import library as module
from timbred.storage.database import APPLICATION_ID, MIGRATIONS, Migration, NewerSchema, migrate, translate_error
from timbred.storage.library import Library, StoredTake, new_take_id, open_library
from timbred.storage.search import read_query

SYNTAX = st.lists(st.sampled_from([*'"*()^:-+%_!\\ \0ax', "NEAR", " OR ", "prompt:"])).map("".join)


def take(prompt: str = "rain on tin", created: float = 0.0, **changed: Any) -> StoredTake:
    plain = StoredTake(
        take_id=new_take_id(),
        path=None,
        created=created,
        prompt=prompt,
        model="pocket",
        seed=7,
        seconds=Seconds(2.0),
        rate=SampleRate(48_000),
        channels=2,
        score=0.25,
        index=0,
        request_id="a1",
        recipe={"prompt": prompt, "seed": 7},
    )
    return replace(plain, **changed)


@pytest.fixture(params=["full text", "like"])
def library(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "like":

        def without(_: object) -> bool:
            return False

        monkeypatch.setattr(module, "has_full_text", without)
    opened = Library(tmp_path / "library" / "takes.sqlite")
    yield opened
    opened.close()


def prompts(found: list[StoredTake]) -> list[str]:
    return [each.prompt for each in found]


def test_library_returns_a_take_unchanged(library: Library, tmp_path: Path) -> None:
    stored = take(path=tmp_path / "rain-0001.wav", score=None, recipe={"a": ["ж", 1.5, None, {"b": True}]})
    library.add(stored)
    assert library.get(stored.take_id) == stored
    assert library.find_by_path(tmp_path / "rain-0001.wav") == stored
    assert library.get("tnone") is None
    assert library.find_by_path(tmp_path / "none.wav") is None


def test_library_has_its_takes_after_a_restart(library: Library) -> None:
    stored = take()
    library.add(stored)
    library.close()
    again = Library(library.path)
    assert again.get(stored.take_id) == stored
    again.close()


def test_library_keeps_a_take_whose_file_is_gone_and_marks_it(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "rain-0001.wav"
    path.write_bytes(b"x")
    library.add(take(path=path))
    library.add(take(created=1.0))
    inline, there = library.search()
    assert (inline.missing, there.missing) == (False, False)
    path.unlink()
    assert library.search("rain")[1].missing


def test_library_search_finds_all_words_newest_first(library: Library) -> None:
    for number, prompt in enumerate(["warm analog pad", "cold analog pad", "warm rain", "Größe 100% pad_x"]):
        library.add(take(prompt, created=float(number)))
    assert prompts(library.search("analog")) == ["cold analog pad", "warm analog pad"]
    assert prompts(library.search("WARM pad")) == ["warm analog pad"]
    assert prompts(library.search("ana pa")) == ["cold analog pad", "warm analog pad"]
    assert prompts(library.search("100%")) == ["Größe 100% pad_x"]
    assert prompts(library.search("", limit=2)) == ["Größe 100% pad_x", "warm rain"]
    assert library.search("pad OR rain") == []
    assert library.search("--") == []


def test_library_orders_takes_of_one_moment(library: Library) -> None:
    for prompt in ("one", "two", "three"):
        library.add(take(prompt, created=5.0))
    assert prompts(library.search()) == ["three", "two", "one"]


def test_library_like_orders_by_shared_words(library: Library) -> None:
    stored = [take(prompt) for prompt in ("warm analog pad", "warm pad", "a warm summer rain", "kick drum")]
    for each in stored:
        library.add(each)
    assert prompts(library.search(like=stored[0].take_id)) == ["warm pad", "a warm summer rain"]
    assert prompts(library.search("rain", like=stored[0].take_id)) == ["a warm summer rain"]
    assert prompts(library.search(like=stored[0].take_id, limit=1)) == ["warm pad"]
    with pytest.raises(BadRequest, match="no take has the id"):
        library.search(like="tnone")


def test_library_like_compares_embeddings_of_the_same_model(library: Library) -> None:
    stored = [take(words) for words in ("bell", "gong", "warm pad", "hat", "a bell")]
    for each in stored:
        library.add(each)
    bell, gong, pad, hat, other = (each.take_id for each in stored)
    directions = {bell: (1.0, 0.0), gong: (0.8, 0.6), hat: (0.0, -1.0)}
    for received, direction in directions.items():
        library.store_embedding(received, "one ear", np.array(direction, "<f4").tobytes())
    library.store_embedding(pad, "another ear", np.array((1.0, 0.0, 0.0), "<f4").tobytes())
    assert [each.take_id for each in library.search(like=bell)] == [gong, hat, other]
    assert [each.take_id for each in library.search("bell", like=bell)] == [other]
    assert [each.take_id for each in library.search(like=bell, limit=1)] == [gong]
    assert library.search(like=pad) == []


@pytest.mark.parametrize("limit", [0, 1001, -1])
def test_library_limits_results(library: Library, limit: int) -> None:
    with pytest.raises(BadRequest, match=f"limit: got {limit}"):
        library.search(limit=limit)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30) | SYNTAX)
def test_library_search_treats_any_text_as_words(library: Library, typed: str) -> None:
    if library.get("tfirst") is None:
        library.add(take("an axe", take_id="tfirst"))
    for found in library.search(typed):
        assert found.prompt == "an axe"
    assert library.search("axe")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=50))
def test_library_stores_any_prompt(library: Library, prompt: str) -> None:
    stored = take(prompt)
    library.add(stored)
    found = library.get(stored.take_id)
    assert found is not None
    assert found.prompt == prompt.encode("utf-8", "replace").decode()


def test_library_serves_many_threads(library: Library) -> None:
    stored = [take(f"rain {number}", created=float(number)) for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(library.add, stored))
        found = list(pool.map(library.get, [each.take_id for each in stored]))
    assert found == stored
    assert len(library.search("rain", limit=1000)) == 60


def test_library_refuses_the_same_id_twice(library: Library) -> None:
    stored = take()
    library.add(stored)
    with pytest.raises(Internal, match="take_id"):
        library.add(stored)
    assert len(library.search("rain")) == 1


def test_new_take_id_is_short_and_differs() -> None:
    ids = {new_take_id() for _ in range(2_000)}
    assert len(ids) == 2_000
    for each in ids:
        assert each[0] == "t"
        assert len(each) == 10
        assert each.isalnum()
        assert not set(each) & set("aeiouy01l")


def test_library_indexes_takes_that_were_added_without_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "takes.sqlite"

    def without(_: object) -> bool:
        return False

    with monkeypatch.context() as patched:
        patched.setattr(module, "has_full_text", without)
        library = Library(path)
        library.add(take("kept rain"))
        library.close()
    library = Library(path)
    assert prompts(library.search("rai")) == ["kept rain"]
    library.close()


DAMAGE = pytest.mark.parametrize("content", [b"no database, but somebody's file" * 100, b"SQLite format 3\0"])


@DAMAGE
def test_library_sets_a_damaged_file_aside_and_never_deletes_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / DEFAULT_LIBRARY_NAME
    for number in (1, 2):
        path.write_bytes(content)
        with caplog.at_level(logging.ERROR):
            library = Library(path)
        library.add(take())
        library.close()
        aside = tmp_path / f"{DEFAULT_LIBRARY_NAME}.damaged-{number}"
        assert aside.read_bytes() == content
        assert str(aside) in caplog.text


@DAMAGE
def test_open_library_leaves_a_file_of_another_kind_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "song.als"
    path.write_bytes(content)
    with pytest.raises(ForbiddenPath, match=r"song.als isn't timbred's library .* set library.file to another file"):
        Library(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_open_library_leaves_another_programs_database_alone(tmp_path: Path) -> None:
    path = tmp_path / "samples.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE takes (mine TEXT)")
    before = path.read_bytes()
    with pytest.raises(ForbiddenPath, match=r"samples.db is another program's database, and isn't changed"):
        Library(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_open_library_takes_a_file_from_before_the_application_id(tmp_path: Path) -> None:
    path = tmp_path / "takes.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        migrate(database)
    Library(path).close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


def test_library_notices_damage_inside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "takes.sqlite"
    library = Library(path)
    for number in range(200):
        library.add(take(f"rain {number}" * 20))
    library.close()
    whole = bytearray(path.read_bytes())
    whole[4_096 : len(whole) // 2] = b"\xff" * (len(whole) // 2 - 4_096)
    path.write_bytes(whole)
    library = Library(path)
    assert library.search() == []
    assert (tmp_path / "takes.sqlite.damaged-1").read_bytes() == bytes(whole)
    library.close()


def test_open_library_leaves_a_newer_schema_alone(tmp_path: Path) -> None:
    path = tmp_path / "takes.sqlite"
    Library(path).close()
    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO migrations VALUES ('colours', '')")
    database.close()
    before = path.read_bytes()
    with pytest.raises(NewerSchema, match=r"newer timbred \(it has colours\): update timbred"):
        Library(path)
    assert path.read_bytes() == before


def test_migrate_applies_migrations_once_in_order_and_all_or_nothing() -> None:
    database = sqlite3.connect(":memory:", isolation_level=None)
    assert migrate(database) == ["takes", "stars", "hearings", "file_numbers", "measurements"]
    assert migrate(database) == []
    more = (*MIGRATIONS, Migration("colours", ("ALTER TABLE takes ADD COLUMN colour TEXT",)))
    broken = (*more, Migration("broken", ("CREATE TABLE moods (mood TEXT)", "this is no statement")))
    with pytest.raises(sqlite3.Error):
        migrate(database, broken)
    assert migrate(database, more) == ["colours"]
    assert database.execute("SELECT colour FROM takes").fetchall() == []
    database.close()


def test_open_library_names_an_unusable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ForbiddenPath, match="can't be used"):
        Library(tmp_path / "file" / "takes.sqlite")
    with pytest.raises(ForbiddenPath, match="can't be opened"):
        Library(tmp_path)


def test_library_refuses_use_after_closing(library: Library) -> None:
    library.close()
    library.close()
    with pytest.raises(Internal, match="closed"):
        library.search()


def test_library_keeps_takes_in_memory_while_the_disk_is_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    library = Library(tmp_path / "takes.sqlite")
    library._run_transaction(lambda database: None)  # pyright: ignore[reportPrivateUsage]
    library._database.execute("PRAGMA max_page_count = 1")  # pyright: ignore[reportPrivateUsage]
    stored = [take(f"rain {n} " + "x" * 4_000, path=tmp_path / f"rain-{n}.wav", created=float(n)) for n in range(100)]
    for one in stored:
        library.add(one)
    assert caplog.text.count("no room left") == 1
    assert library.get(stored[99].take_id) == stored[99]
    assert library.find_by_path(tmp_path / "rain-99.wav") == stored[99]
    assert library.search("rai", limit=3) == stored[:96:-1]
    assert library.search("none") == library.search("...") == []
    assert (library.count("rain"), library.count()) == (100, 100)
    assert library.star(stored[98].take_id, True)
    assert prompts(library.browse("", 10, starred=True)) == [stored[98].prompt]
    library._database.execute("PRAGMA max_page_count = 100000")  # pyright: ignore[reportPrivateUsage]
    library.add(take("room again", created=1000.0))
    library.close()
    again = Library(tmp_path / "takes.sqlite")
    assert again.count() == 101
    assert prompts(again.browse("", 10, starred=True)) == [stored[98].prompt]
    again.close()


def test_library_close_stores_what_was_kept_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "takes.sqlite"
    library = Library(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        library.add(stored := take())
        assert "another program keeps the library" in caplog.text
        other.execute("ROLLBACK")
    library.close()
    again = Library(path)
    assert again.get(stored.take_id) == stored
    again.close()


def test_library_add_refuses_one_take_twice(library: Library) -> None:
    stored = take()
    library.add(stored)
    with pytest.raises(Internal):
        library.add(stored)


def test_translate_error_names_a_full_disk(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "full.sqlite")) as database:
        database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(sqlite3.OperationalError) as caught:
            database.execute("CREATE TABLE full (text TEXT)")
    assert isinstance(translate_error(caught.value, tmp_path), DiskFull)
    assert isinstance(translate_error(sqlite3.OperationalError("?"), tmp_path), Internal)


@pytest.mark.skipif(sys.platform == "win32", reason="open files can't be removed there")
def test_library_is_written_again_after_its_file_was_deleted(tmp_path: Path) -> None:
    library = Library(tmp_path / "takes" / "takes.sqlite")
    before, after = take("before"), take("after")
    library.add(before)
    shutil.rmtree(tmp_path / "takes")
    library.add(take("without a folder"))
    (tmp_path / "takes").mkdir()
    library.add(after)
    library.close()
    again = Library(tmp_path / "takes" / "takes.sqlite")
    assert sorted(prompts(again.search())) == ["after", "before", "without a folder"]
    again.close()


@pytest.mark.skipif(sys.platform == "win32", reason="open files can't be replaced there")
def test_library_is_opened_again_after_its_file_was_replaced(tmp_path: Path) -> None:
    library, other = Library(tmp_path / "takes.sqlite"), Library(tmp_path / "other.sqlite")
    library.add(take("old"))
    other.add(take("new"))
    other.close()
    for ending in ("-wal", "-shm"):
        (tmp_path / f"takes.sqlite{ending}").unlink(missing_ok=True)
    (tmp_path / "other.sqlite").replace(library.path)
    library.add(take("added"))
    assert sorted(prompts(library.search())) == ["added", "new"]
    library.close()


def test_open_library_reports_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks(monkeypatch, tmp_path / "share")
    with pytest.raises(
        ForbiddenPath, match=r"can't be locked .* set library.file to a file on this computer's own disk"
    ):
        Library(tmp_path / "share" / "takes.sqlite")


def without_locks(monkeypatch: pytest.MonkeyPatch, share: Path) -> None:
    def locks_work(folder: Path) -> bool:
        return folder != share

    monkeypatch.setattr(opening, "locks_work", locks_work)


def test_open_library_begins_the_spare_with_the_shares_takes_and_returns_to_the_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file, spare = tmp_path / "share" / "takes.sqlite", tmp_path / "data"
    library = open_library(file, spare)
    library.add(take("on the share"))
    library.close()
    assert not spare.exists()
    with monkeypatch.context() as patched:
        without_locks(patched, file.parent)
        for prompt in ("first", "second"):
            library = open_library(file, spare)
            library.add(take(prompt))
            library.store_embedding(library.search(prompt)[0].take_id, "ear", b"vector")
            library.close()
        assert str(spare) in caplog.text
        library = open_library(file, spare)
        assert sorted(prompts(library.search())) == ["first", "on the share", "second"]
        library.close()
        with pytest.raises(ForbiddenPath, match="can't be locked"):
            open_library(file, None)
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(ForbiddenPath, match="can't be locked"):
            open_library(file, tmp_path / "file")
    for _ in range(2):
        library = open_library(file, spare)
        assert sorted(prompts(library.search())) == ["first", "on the share", "second"]
        assert prompts(library.search("secon")) == ["second"]
        library.close()


def test_open_library_in_memory_begins_with_the_takes_of_an_unwritable_file(tmp_path: Path) -> None:
    path = tmp_path / "takes.sqlite"
    library = Library(path)
    library.add(take("before"))
    library.close()
    before = path.read_bytes()
    library = Library(path, in_memory=True)
    library.add(take("after"))
    assert sorted(prompts(library.search())) == ["after", "before"]
    assert prompts(library.search("bef")) == ["before"]
    library.close()
    assert path.read_bytes() == before
    for content in (b"", b"no database", None):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        library = Library(path, in_memory=True)
        library.add(take("new"))
        assert prompts(library.search()) == ["new"]
        library.close()


def test_open_library_in_memory_begins_empty_beside_a_newer_schema(tmp_path: Path) -> None:
    path = tmp_path / "takes.sqlite"
    Library(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("INSERT INTO migrations VALUES ('colours', '')")
    library = Library(path, in_memory=True)
    assert library.search() == []
    library.close()


def test_open_library_does_not_use_the_spare_for_a_newer_schema(tmp_path: Path) -> None:
    path = tmp_path / "takes.sqlite"
    Library(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("INSERT INTO migrations VALUES ('colours', '')")
    with pytest.raises(NewerSchema):
        open_library(path, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_library_pages_cover_everything_once_newest_first(library: Library) -> None:
    # several of the same moment: their order is that in which they came
    stored = [take(f"sound number {n}", created=float(n // 3)) for n in range(10)]
    for one in stored:
        library.add(one)
    library.add(take("another", created=1.0))
    found: list[StoredTake] = []
    while page := library.browse("sound", 4, found[-1].take_id if found else None):
        found += page
    assert prompts(found) == [f"sound number {n}" for n in range(9, -1, -1)]
    assert (library.count("sound"), library.count(), library.count("...")) == (10, 11, 0)
    assert library.browse("sound", 4, "tnone") == []


def test_library_stores_and_finds_stars(library: Library) -> None:
    stored = [take(f"sound {n}", created=float(n)) for n in range(4)]
    for one in stored:
        library.add(one)
    assert library.star(stored[1].take_id, True)
    assert library.star(stored[3].take_id, True)
    assert not library.star("tnone", True)
    assert prompts(library.browse("", 10, starred=True)) == ["sound 3", "sound 1"]
    assert prompts(library.browse("sound", 10, before=stored[3].take_id, starred=True)) == ["sound 1"]
    assert (library.count(starred=True), library.count("sound 1", starred=True)) == (2, 1)
    assert [one.starred for one in library.search("sound")] == [True, False, True, False]
    assert library.star(stored[3].take_id, False)
    library.close()
    again = Library(library.path)
    assert prompts(again.browse("", 10, starred=True)) == ["sound 1"]
    again.close()


def test_library_adds_stars_to_an_older_schema(tmp_path: Path) -> None:
    path = tmp_path / "takes.sqlite"
    with sqlite3.connect(path, isolation_level=None) as database:
        migrate(database, MIGRATIONS[:1])
        columns = "take_id, created, prompt, model, seed, seconds, rate, channels, place, request_id, recipe"
        database.execute(
            f"INSERT INTO takes ({columns}) VALUES ('told', 1, 'rain', 'm', 1, 1, 8000, 1, 0, 'a', '{{}}')"
        )
    database.close()
    library = Library(path)
    found = library.get("told")
    assert found is not None
    assert not found.starred
    assert library.star("told", True)
    assert library.next_file_number("set", "pad") == 1
    library.close()


def test_library_file_numbers_count_by_folder_and_slug_and_survive_a_restart(library: Library) -> None:
    assert library.file_number("", "pad") == 0
    assert [library.next_file_number("", "pad") for _ in range(2)] == [1, 2]
    assert library.next_file_number("set", "pad") == 1
    assert library.next_file_number("", "pad", above=40) == 41
    assert library.next_file_number("", "pad", above=7) == 42
    library.close()
    again = Library(library.path)
    assert again.file_number("", "pad") == 42
    again.raise_file_numbers([("", "pad", 3), ("", "rain", 9)])
    assert (again.next_file_number("", "pad"), again.next_file_number("", "rain")) == (43, 10)
    again.close()


def test_library_file_numbers_take_over_higher_ones_of_the_spare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, spare = tmp_path / "share" / "takes.sqlite", tmp_path / "data"
    library = open_library(file, spare)
    assert library.next_file_number("", "rain", above=4) == 5
    library.close()
    with monkeypatch.context() as patched:
        without_locks(patched, file.parent)
        library = open_library(file, spare)
        assert library.next_file_number("", "rain") == 6
        assert library.next_file_number("", "pad") == 1
        library.close()
    for _ in range(2):
        library = open_library(file, spare)
        assert (library.file_number("", "rain"), library.file_number("", "pad")) == (6, 1)
        library.close()


def test_library_search_finds_takes_by_measured_tempo_and_key(library: Library) -> None:
    slow = take("dusty drums", 1.0, tempo=97.3, key="C minor")
    fast = take("dusty drums", 2.0, tempo=150.0, key="F# major", downbeat=0.1, fit=0.5)
    words = take("a song called c minor 97", 3.0)
    for stored in (slow, fast, words):
        library.add(stored)

    def found(text: str) -> list[str]:
        assert library.count(text) == len(library.search(text))
        return [stored.take_id for stored in library.search(text)]

    assert found("bpm:97") == found("BPM:97.5") == found("drums key:Cm") == [slow.take_id]
    assert found("bpm:90-160") == [fast.take_id, slow.take_id]
    assert found("key:Gb") == found("key:F# major") == found("bpm:150 key:f#-major") == [fast.take_id]
    assert found("c minor") == [words.take_id, slow.take_id]
    assert found("dusty C minor") == [slow.take_id]
    assert found("bpm:98") == found("bpm:97 key:D") == found("key:H") == []
    assert library.get(fast.take_id) == fast


def test_library_search_finds_unstored_takes_by_what_was_measured(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DiskFull("no room")

    kept = take("drums", tempo=97.0, key="C minor")
    with monkeypatch.context() as patched:
        patched.setattr(library, "_insert", full)
        library.add(kept)
    assert library.search("bpm:97") == library.search("C minor") == library.search("drums key:Cm") == [kept]
    assert library.search("bpm:120") == library.search("key:D") == []


@given(SYNTAX.map(lambda text: f"bpm:{text} key:{text} {text} minor"))
def test_read_query_reads_any_text(text: str) -> None:
    query = read_query(text)
    assert query is None or all(word in text for word in query.words)


def test_library_takes_over_the_spare_of_a_version_that_measured_nothing(tmp_path: Path) -> None:
    spare = tmp_path / "spare.sqlite"
    with closing(sqlite3.connect(spare, isolation_level=None)) as older:
        migrate(older, MIGRATIONS[:4])
        older.execute(
            "INSERT INTO takes"
            " (take_id, created, prompt, model, seed, seconds, rate, channels, place, request_id, recipe)"
            " VALUES ('told', 1, 'rain', 'pocket', 7, 2, 48000, 1, 0, 'a', '{}')"
        )
    library = Library(tmp_path / "takes.sqlite")
    library.take_over(spare)
    (stored,) = library.search("rain")
    assert (stored.take_id, stored.tempo, stored.key, stored.fit) == ("told", None, "", None)
    library.close()
