"""Files of keys: what is written is read, and what others could read or write is refused with the remedy."""

import os
import stat
import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from tests.keys_home import TOKEN, KeysHome
from timbred.access import keys
from timbred.access.keys import (
    TrustedKey,
    TrustedKeys,
    check_key_name,
    check_token,
    hexadecimal,
    keys_folder,
    keys_for,
    make_key_pair,
    make_token,
    own_keys,
    parse_public_key,
    read_own_key,
    read_token,
    read_trusted_key,
    read_trusted_keys,
    remove_trusted_key,
    write_own_key,
    write_trusted_key,
)
from timbred.errors import AccessDenied, BadRequest


def trust(home: KeysHome, name: str, host: str = "") -> TrustedKey:
    key = TrustedKey(name, make_key_pair().public, host)
    write_trusted_key(home.folder, key)
    return key


@pytest.mark.parametrize("name", ["own.key", "token", "trusted/rack.key"])
def test_keys_files_belong_to_the_user_alone(keys_home: KeysHome, name: str) -> None:
    trust(keys_home, "rack")
    mode = stat.S_IMODE((keys_home.folder / name).stat().st_mode)
    assert mode == 0o600
    assert stat.S_IMODE(keys_home.folder.stat().st_mode) == 0o700


def test_read_own_key_returns_what_was_written(keys_home: KeysHome) -> None:
    assert read_own_key(keys_home.folder) == keys_home.own
    assert read_token(keys_home.folder) == TOKEN
    assert keys_folder() == keys_home.folder
    assert "secret" not in repr(keys_home.own)


def test_read_own_key_returns_none_without_a_file(tmp_path: Path) -> None:
    assert read_own_key(tmp_path / "none") is None
    assert read_token(tmp_path / "none") == ""
    assert read_trusted_keys(tmp_path / "none") == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622, 0o601])
def test_read_own_key_refuses_files_that_others_can_use(keys_home: KeysHome, mode: int) -> None:
    trust(keys_home, "rack")
    for name, read in (
        ("own.key", lambda: read_own_key(keys_home.folder)),
        ("token", lambda: read_token(keys_home.folder)),
        ("trusted/rack.key", lambda: read_trusted_keys(keys_home.folder)),
    ):
        path = keys_home.folder / name
        path.chmod(mode)
        with pytest.raises(BadRequest) as refused:
            read()
        assert f"(its mode is {mode:04o}): run chmod 600 {path}" in refused.value.message
        path.chmod(0o600)
        read()


@pytest.mark.parametrize("folder", ["", "trusted"])
def test_read_trusted_keys_refuses_a_folder_that_others_can_write(keys_home: KeysHome, folder: str) -> None:
    trust(keys_home, "rack")
    path = keys_home.folder / folder
    path.chmod(0o777)
    with pytest.raises(BadRequest, match="run chmod 700"):
        if folder:
            read_trusted_keys(keys_home.folder)
        else:
            read_own_key(keys_home.folder)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files to another user")
def test_read_own_key_refuses_a_file_of_another_user(keys_home: KeysHome) -> None:
    os.chown(keys_home.folder / "own.key", 12345, 12345)
    with pytest.raises(BadRequest, match="belongs to user 12345"):
        read_own_key(keys_home.folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"public = 1", b'public = "short"', b'public = "a"\nsecret = "b"', b"[" * 4000, b"x" * 5000],
)
def test_read_own_key_refuses_damaged_files_by_name(keys_home: KeysHome, content: bytes) -> None:
    path = keys_home.folder / "own.key"
    path.write_bytes(content)
    with pytest.raises(BadRequest) as refused:
        read_own_key(keys_home.folder)
    assert f"the key file {path} can't be used" in refused.value.message


def test_read_own_key_refuses_a_pair_that_does_not_belong_together(keys_home: KeysHome) -> None:
    path = keys_home.folder / "own.key"
    other = make_key_pair()
    path.write_text(f'public = "{other.public.decode()}"\nsecret = "{keys_home.own.secret.decode()}"\n', "ascii")
    with pytest.raises(BadRequest, match="doesn't belong to its secret key") as refused:
        read_own_key(keys_home.folder)
    assert keys_home.own.secret.decode() not in refused.value.message


@pytest.mark.parametrize("make", ["folder", "fifo"])
def test_read_token_refuses_what_is_no_file_without_waiting(keys_home: KeysHome, make: str) -> None:
    path = keys_home.folder / "token"
    path.unlink()
    if make == "fifo":
        os.mkfifo(path, 0o600)
    else:
        path.mkdir(mode=0o700)
    with pytest.raises(BadRequest, match="it isn't a file"):
        read_token(keys_home.folder)


def test_write_own_key_replaces_only_on_request(keys_home: KeysHome) -> None:
    other = make_key_pair()
    with pytest.raises(BadRequest, match=r"exists already; timbred keys make --replace"):
        write_own_key(keys_home.folder, other)
    assert read_own_key(keys_home.folder) == keys_home.own
    write_own_key(keys_home.folder, other, replace=True)
    assert read_own_key(keys_home.folder) == other
    assert sorted(file.name for file in keys_home.folder.iterdir()) == ["own.key", "token"]


def test_remove_trusted_key_names_the_others(keys_home: KeysHome) -> None:
    trust(keys_home, "rack")
    with pytest.raises(BadRequest, match="'laptop'; trusted are: rack"):
        remove_trusted_key(keys_home.folder, "laptop")
    remove_trusted_key(keys_home.folder, "rack")
    assert read_trusted_keys(keys_home.folder) == []


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../own", "a\x00", "x" * 65, "con", "ä", "a b"])
def test_check_key_name_refuses_what_is_no_file_name(keys_home: KeysHome, name: str) -> None:
    with pytest.raises(BadRequest, match="name:"):
        check_key_name(name)
    with pytest.raises(BadRequest, match="name:"):
        write_trusted_key(keys_home.folder, TrustedKey(name, make_key_pair().public))


def test_write_trusted_key_refuses_a_host_that_could_end_its_line(keys_home: KeysHome) -> None:
    with pytest.raises(BadRequest, match="--host"):
        write_trusted_key(keys_home.folder, TrustedKey("rack", make_key_pair().public, 'a"\nb'))


@given(st.binary(min_size=32, max_size=32))
def test_parse_public_key_reads_both_spellings(key: bytes) -> None:
    spelled = z85.encode(key)
    assert parse_public_key(key.hex()) == parse_public_key(f" {key.hex().upper()}\n") == spelled
    assert parse_public_key(spelled.decode()) == spelled
    assert hexadecimal(spelled) == key.hex()


@given(
    st.one_of(
        st.text(max_size=80), st.text(string.printable, min_size=40, max_size=40), st.text(min_size=64, max_size=64)
    )
)
def test_parse_public_key_refuses_everything_else(text: str) -> None:
    try:
        key = parse_public_key(text)
    except BadRequest as error:
        assert error.message.startswith("key: got ")
    else:
        assert len(z85.decode(key)) == 32


@given(st.text(max_size=300))
def test_check_token_never_repeats_it(text: str) -> None:
    try:
        assert check_token(text) == text
        assert 16 <= len(text) <= 256
        assert text.isascii()
    except BadRequest as error:
        assert len(text) < 8 or text not in error.message


@given(st.binary(max_size=200))
def test_read_trusted_key_returns_a_key_or_names_the_file(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rack.key"
        path.write_bytes(content)
        path.chmod(0o600)
        try:
            key = read_trusted_key(path)
        except BadRequest as error:
            assert str(path) in error.message
        else:
            assert len(z85.decode(key.public)) == 32


def test_make_token_makes_valid_ones() -> None:
    made = {make_token() for _ in range(20)}
    assert len(made) == 20
    assert all(check_token(token) == token for token in made)


def test_trusted_keys_follow_the_folder(keys_home: KeysHome) -> None:
    trusted = TrustedKeys(keys_home.folder, keys_home.own)
    assert trusted.name_of(z85.decode(keys_home.own.public)) == "this machine"
    assert trusted.names == []
    rack = trust(keys_home, "rack")
    assert trusted.name_of(z85.decode(rack.public)) == "rack"
    assert trusted.names == ["rack"]
    remove_trusted_key(keys_home.folder, "rack")
    assert trusted.name_of(z85.decode(rack.public)) is None
    assert trusted.name_of(b"") is None


def test_trusted_keys_read_the_folder_again_only_after_a_change(
    keys_home: KeysHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(keys_home, "rack")
    old = (keys_home.folder / "trusted").stat().st_mtime_ns - 10**9
    os.utime(keys_home.folder / "trusted", ns=(old, old))
    trusted = TrustedKeys(keys_home.folder, keys_home.own)
    reads: list[Path] = []

    def no_files(folder: Path) -> list[Path]:
        reads.append(folder)
        return []

    monkeypatch.setattr(keys, "trusted_files", no_files)
    for _ in range(100):
        assert trusted.name_of(bytes(32)) is None
    assert reads == []


def test_trusted_keys_leave_out_a_file_with_a_fault_and_log_it_once(
    keys_home: KeysHome, caplog: pytest.LogCaptureFixture
) -> None:
    trusted = TrustedKeys(keys_home.folder, keys_home.own)
    good, bad = trust(keys_home, "good"), trust(keys_home, "bad")
    (keys_home.folder / "trusted" / "bad.key").chmod(0o644)
    for _ in range(3):
        assert trusted.name_of(z85.decode(bad.public)) is None
        assert trusted.name_of(z85.decode(good.public)) == "good"
    assert caplog.text.count("chmod 600") == 1
    with pytest.raises(BadRequest, match="chmod 600"):
        TrustedKeys(keys_home.folder, keys_home.own)


def test_keys_for_finds_the_key_by_host_or_name(keys_home: KeysHome) -> None:
    rack, stage = trust(keys_home, "rack", "192.168.1.20"), trust(keys_home, "stage.local")
    for host, key in (("192.168.1.20", rack), ("Stage.local", stage)):
        found = keys_for(host)
        assert found is not None
        assert (found.server, found.secret) == (key.public, keys_home.own.secret)
        assert keys_home.own.secret.decode() not in repr(found)
    assert keys_for("rack") is None
    assert keys_for("127.0.0.1") is None
    own = keys_for("0.0.0.0")
    assert own == own_keys()
    assert own is not None
    assert own.server == keys_home.own.public


def test_keys_for_leaves_loopback_undisturbed_by_faults(keys_home: KeysHome) -> None:
    trust(keys_home, "rack", "192.168.1.20")
    (keys_home.folder / "trusted" / "rack.key").chmod(0o644)
    assert keys_for("127.0.0.1") is keys_for("localhost") is None
    with pytest.raises(AccessDenied, match="chmod 600"):
        keys_for("192.168.1.20")


def test_keys_for_demands_an_own_pair(keys_home: KeysHome) -> None:
    trust(keys_home, "rack", "192.168.1.20")
    (keys_home.folder / "own.key").unlink()
    with pytest.raises(AccessDenied, match="timbred keys make"):
        keys_for("192.168.1.20")


def test_keys_folder_without_a_home_folder_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_folder(kind: str) -> None:
        assert kind == "config"

    monkeypatch.setattr(keys, "user_folder", no_folder)
    with pytest.raises(BadRequest, match="XDG_CONFIG_HOME"):
        keys_folder()
    assert keys_for("192.168.1.20") is None
    assert own_keys() is None
