"""The setting `engines`: which places it names, what it refuses, and what engines on one CPU share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timbred.errors import BadRequest
from timbred.ipc import devices
from timbred.ipc.devices import MAX_ENGINES, EnginePlace, list_cuda_devices, read_places, share_of

GB = 1_000_000_000


def described(places: tuple[EnginePlace, ...]) -> list[str]:
    return [f"{place.number} {place.address or place.device} {place.index}" for place in places]


@pytest.mark.parametrize(
    ("engines", "device", "cuda", "expected"),
    [
        ("auto", "auto", 0, ["1 auto 0"]),
        ("auto", "auto", 1, ["1 auto 0"]),
        ("auto", "auto", 3, ["1 cuda:0 0", "2 cuda:1 0", "3 cuda:2 0"]),
        ("auto", "cpu", 3, ["1 cpu 0"]),
        ("cuda:1 cuda:0", "auto", 0, ["1 cuda:1 0", "2 cuda:0 0"]),
        ("cpu,cpu", "auto", 3, ["1 cpu 0", "2 cpu 0"]),
        ("ray://rack:10001 2", "auto", 0, ["1 ray://rack:10001 0", "2 ray://rack:10001 1"]),
        ("mps ray://[::1]:10001 1", "auto", 0, ["1 mps 0", "2 ray://[::1]:10001 0"]),
    ],
)
def test_read_places_numbers_the_engines(engines: str, device: str, cuda: int, expected: list[str]):
    assert described(read_places(engines, device, lambda: ["a GPU"] * cuda)) == expected


@pytest.mark.parametrize(
    ("engines", "device", "words"),
    [
        (" , ", "auto", "the list is empty"),
        ("cuda:0 cuda:0", "auto", "cuda:0 is named 2 times"),
        ("mps cpu mps", "auto", "mps is named 2 times"),
        ("cuda", "auto", "'cuda' is no device; write cuda:0"),
        ("cuda:0 quantum", "auto", "'quantum' is no device"),
        ("auto cpu", "auto", "auto stands alone"),
        ("cuda:0", "cpu", "remove the setting device"),
        ("cpu " * (MAX_ENGINES + 1), "auto", f"allowed are up to {MAX_ENGINES}"),
        ("ray://rack 2", "auto", "'ray://rack' is no address"),
        ("ray://rack:0 2", "auto", "'ray://rack:0' is no address"),
        ("ray://ra ck:10001 2", "auto", "'ray://ra' is no address"),
        ("ray:rack:10001 2", "auto", "'ray:rack:10001' is no address"),
        ("ray://rack:10001", "auto", "the number of engines at ray://rack:10001 is ''"),
        ("ray://rack:10001 0", "auto", "the number of engines at ray://rack:10001 is '0'"),
        ("ray://rack:10001 cpu", "auto", "is 'cpu'; write a number"),
        ("ray://rack:1 1 ray://rack:1 1", "auto", "ray://rack:1 is named twice"),
    ],
)
def test_read_places_names_what_is_wrong(engines: str, device: str, words: str):
    with pytest.raises(BadRequest) as refused:
        read_places(engines, device)
    assert words in str(refused.value)


WORDS = st.sampled_from(["auto", "cpu", "cuda:0", "cuda:1", "mps", "ray://a:1", "2", "0", "ray://", "-1", "²", "٣", ""])


@given(st.lists(WORDS, max_size=8).map(" ".join) | st.text(max_size=40), st.sampled_from(["auto", "cpu"]))
def test_read_places_accepts_or_refuses_any_text(engines: str, device: str):
    try:
        places = read_places(engines, device, lambda: [])
    except BadRequest as error:
        assert str(error).startswith("setting ")
        return
    assert [place.number for place in places] == list(range(1, len(places) + 1))
    gpus = [place.device for place in places if place.device.startswith(("cuda", "mps"))]
    assert len(gpus) == len(set(gpus))


def test_share_of_divides_cores_and_memory_among_engines_on_the_cpu():
    places = read_places("cpu cuda:0 cpu")
    shares = [share_of(place, places, 0, 0.0, 5, 16 * GB) for place in places]
    assert [share.threads for share in shares] == [2, 0, 2]
    assert [share.memory_mb for share in shares] == [6400.0, 0.0, 6400.0]
    alone = read_places("cpu")
    assert share_of(alone[0], alone, 0, 0.0, 5, 16 * GB).threads == 0, "the engine takes all cores itself"
    assert share_of(places[0], places, 1, 2000.0, 5, 16 * GB) == devices.EngineShare(1, 2000.0)


@pytest.mark.parametrize(
    ("memory_mb", "words"),
    [(0.0, "name cpu at most 3 times"), (2000.0, "name cpu at most 1 times, or lower engine.memory")],
)
def test_share_of_refuses_more_engines_than_memory(memory_mb: float, words: str):
    places = read_places("cpu cpu cpu cpu")
    with pytest.raises(BadRequest) as refused:
        share_of(places[0], places, 0, memory_mb, 8, 3 * GB)
    assert words in str(refused.value)


def test_list_cuda_devices_asks_the_driver_in_a_child(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "_has_driver", lambda: True)
    assert list_cuda_devices() == (devices.query_driver() if devices.torch_uses_cuda() else [])
    monkeypatch.setattr(devices, "_has_driver", lambda: False)
    assert list_cuda_devices() == []
