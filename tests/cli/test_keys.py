"""`timbred keys` as a user types it, and what `doctor` says of access."""

import json
import os
import socket
import stat
import sys
import threading
from pathlib import Path

import pytest

from tests.integration.conftest import StartDaemon, start_daemon
from tests.integration.daemons import DaemonProcess
from tests.keys_home import BEYOND, TOKEN, KeysHome, own_address
from tests.patience import TIMEOUT_S
from tests.transports.test_tokens import Answer
from timbred.access.keys import hexadecimal, make_key_pair, read_own_key, read_token, read_trusted_keys
from timbred.access.policy import access_rules
from timbred.cli import doctor, keys
from timbred.cli.demo import OscConnection
from timbred.cli.main import main
from timbred.config import load
from timbred.errors import AccessDenied, BadRequest, ShuttingDown
from timbred.protocol.osc_packets import write_message

__all__ = ["start_daemon"]

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder without keys."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "timbred" / "keys"


def fails(*words: str) -> None:
    """Run a command that ends with exit status 1."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 1


def runs(*words: str) -> None:
    """Run a command that ends with exit status 0."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 0


def test_keys_make_prints_the_public_key_and_keeps_the_rest(empty_home: Path, capsys: Capture) -> None:
    runs("keys", "make")
    printed = capsys.readouterr()
    own = read_own_key(empty_home)
    assert own is not None
    assert printed.out.strip() == hexadecimal(own.public)
    assert f"timbred keys trust {keys._own_name()} {hexadecimal(own.public)}" in printed.err  # pyright: ignore[reportPrivateUsage]
    assert own.secret.decode() not in printed.out + printed.err
    assert stat.S_IMODE((empty_home / "own.key").stat().st_mode) == 0o600
    token = read_token(empty_home)
    assert len(token) >= 32
    fails("keys", "make")
    assert "--replace" in capsys.readouterr().err
    assert read_own_key(empty_home) == own
    runs("keys", "make", "--replace")
    assert read_own_key(empty_home) != own
    assert read_token(empty_home) != token


def test_keys_make_completes_what_is_missing(keys_home: KeysHome, capsys: Capture) -> None:
    (keys_home.folder / "token").unlink()
    runs("keys", "make")
    assert read_own_key(keys_home.folder) == keys_home.own
    assert len(read_token(keys_home.folder)) >= 32
    assert hexadecimal(keys_home.own.public) in capsys.readouterr().out


def test_keys_trust_list_and_remove(keys_home: KeysHome, capsys: Capture) -> None:
    pair = make_key_pair()
    runs("keys", "trust", "rack", hexadecimal(pair.public), "--host", "192.168.1.20")
    runs("keys", "trust", "stage", make_key_pair().public.decode())
    capsys.readouterr()
    runs("keys", "--json")
    rows = json.loads(capsys.readouterr().out)
    assert [(row["kind"], row["name"], row["host"]) for row in rows] == [
        ("own", "own key", ""),
        ("trusted", "rack", "192.168.1.20"),
        ("trusted", "stage", "stage"),
    ]
    assert rows[0]["key"] == hexadecimal(keys_home.own.public)
    assert rows[1]["key"] == hexadecimal(pair.public)
    runs("keys")
    table = capsys.readouterr().out
    assert hexadecimal(pair.public) in table
    assert keys_home.own.secret.decode() not in table
    runs("keys", "remove", "rack")
    assert [key.name for key in read_trusted_keys(keys_home.folder)] == ["stage"]
    fails("keys", "remove", "rack")
    assert "no trusted key is called 'rack'; trusted are: stage" in capsys.readouterr().err


def test_keys_without_any_say_how_to_make_them(empty_home: Path, capsys: Capture) -> None:
    runs("keys")
    assert "timbred keys make" in capsys.readouterr().out
    fails("keys", "token")
    assert "timbred keys make" in capsys.readouterr().err
    assert not empty_home.exists()


def test_keys_trust_changes_the_host_of_a_known_key(keys_home: KeysHome) -> None:
    pair = make_key_pair()
    keys.trust("rack", hexadecimal(pair.public), None, replace=False)
    keys.trust("rack", None, "10.0.0.2", replace=False)
    keys.trust("rack", hexadecimal(pair.public), "10.0.0.3", replace=False)
    (key,) = read_trusted_keys(keys_home.folder)
    assert (key.public, key.host) == (pair.public, "10.0.0.3")


@pytest.mark.parametrize(
    ("name", "key", "message"),
    [
        ("rack", "other", "rack.key exists already; timbred keys trust rack KEY --replace"),
        ("laptop", "known", "this key is trusted already, as 'rack'"),
        ("laptop", "own", "this machine's own key"),
        ("laptop", "nonsense", "key: got 'nonsense'"),
        ("a/b", "other", "name: got 'a/b'"),
    ],
)
def test_keys_trust_refuses(keys_home: KeysHome, name: str, key: str, message: str) -> None:
    known = make_key_pair().public
    keys.trust("rack", hexadecimal(known), None, replace=False)
    texts = {
        "other": hexadecimal(make_key_pair().public),
        "known": known.decode(),
        "own": keys_home.own.public.decode(),
        "nonsense": "nonsense",
    }
    with pytest.raises(BadRequest) as refused:
        keys.trust(name, texts[key], None, replace=False)
    assert message in refused.value.message
    assert [each.public for each in read_trusted_keys(keys_home.folder)] == [known]


def test_keys_trust_reads_the_key_from_standard_input(
    keys_home: KeysHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_key_pair()
    (tmp_path / "in").write_text(hexadecimal(pair.public) + "\n", "ascii")
    with (tmp_path / "in").open("r", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        keys.trust("rack", None, None, replace=False)
    assert [key.public for key in read_trusted_keys(keys_home.folder)] == [pair.public]


def test_keys_name_a_file_that_others_can_use(keys_home: KeysHome, capsys: Capture) -> None:
    (keys_home.folder / "own.key").chmod(0o644)
    fails("keys")
    assert f"run chmod 600 {keys_home.folder / 'own.key'}" in capsys.readouterr().err


def test_keys_token_prints_the_one_in_force(keys_home: KeysHome, capsys: Capture) -> None:
    runs("keys", "token")
    assert capsys.readouterr().out == TOKEN + "\n"
    runs("keys", "token", "--set", "access.token=another-token-0123456789")
    assert capsys.readouterr().out == "another-token-0123456789\n"
    assert keys_home.folder.exists()


def get(daemon: DaemonProcess, path: str, cookie: str = "") -> Answer:
    with socket.create_connection(("127.0.0.1", daemon.http)) as connection:
        fields = f"Host: a\r\nConnection: close\r\n{f'Cookie: {cookie}' if cookie else 'X: y'}\r\n"
        connection.sendall(f"GET {path} HTTP/1.1\r\n{fields}\r\n".encode())
        whole = b""
        while part := connection.recv(65536):
            whole += part
    return Answer(whole)


def test_keys_link_opens_the_panel_of_the_running_daemon(
    keys_home: KeysHome, start_daemon: StartDaemon, capsys: Capture
) -> None:
    daemon = start_daemon(*BEYOND, more={"XDG_CONFIG_HOME": str(keys_home.config)})
    settings = ["--set", "host=0.0.0.0", "--set", f"http.port={daemon.http}"]
    runs("keys", "link", "--host", "rack.local", *settings)
    link = capsys.readouterr().out.strip()
    assert link.startswith(f"http://rack.local:{daemon.http}/access/link/")
    runs("keys", "link", "--set", f"http.port={daemon.http}")
    assert capsys.readouterr().out.startswith(f"http://{own_address()}:{daemon.http}/access/link/")
    path = link.partition(str(daemon.http))[2]
    cookie = get(daemon, path).headers["set-cookie"].partition(";")[0]
    assert get(daemon, "/status", cookie).status == 200
    assert get(daemon, path).status == 401
    fails("keys", "link", *settings, "--set", "access.token=another-token-0123456789")
    assert "has another token" in capsys.readouterr().err
    log = daemon.log.read_text("utf-8")
    assert TOKEN not in log
    assert path not in log


def test_keys_link_says_why_there_is_none(daemon_port: int, keys_home: KeysHome) -> None:
    with pytest.raises(ShuttingDown, match="no timbred answers"):
        keys.request_link("127.0.0.1", 1, TOKEN)
    with pytest.raises(BadRequest, match="demands no token"):
        keys.request_link("127.0.0.1", daemon_port, TOKEN)
    assert keys_home.folder.exists()


@pytest.fixture
def daemon_port(start_daemon: StartDaemon) -> int:
    """HTTP port of a daemon on loopback."""
    return start_daemon().http


def findings(*flags: str) -> dict[str, doctor.Finding]:
    """What `doctor` says of access."""
    config = load(None, {}, flags)
    return {finding.what: finding for finding in doctor._access(config)}  # pyright: ignore[reportPrivateUsage]


def test_doctor_says_what_is_open_to_whom(keys_home: KeysHome) -> None:
    keys.trust("laptop", hexadecimal(make_key_pair().public), None, replace=False)
    own = findings()["access"]
    assert (own.state, "this machine only" in own.found) == ("good", True)
    beyond = findings("host=0.0.0.0", "access.allow=192.168.1.5 10.0.0.0/24")
    assert {finding.state for finding in beyond.values()} == {"good"}
    assert "keys of: laptop" in beyond["access to ZeroMQ"].found
    assert "the folder of keys" in beyond["access to HTTP"].found
    assert "192.168.1.5/32, 10.0.0.0/24" in beyond["access to OSC"].found
    assert findings("host=0.0.0.0", "access.allow=0.0.0.0/0")["access to OSC"].state == "note"
    opened = findings("host=0.0.0.0", "access.open=1")["access"]
    assert (opened.state, "everybody who can reach 0.0.0.0" in opened.found) == ("note", True)
    assert keys_home.folder.exists()


@pytest.mark.parametrize(
    ("flags", "state", "words"),
    [
        (["engines=cuda:0 cuda:0"], "bad", "cuda:0 is named 2 times"),
        (["engines=cuda:0", "device=cpu"], "bad", "are both set"),
    ],
)
def test_doctor_checks_where_engines_run(flags: list[str], state: str, words: str) -> None:
    (finding,) = doctor._engines(load(None, {}, flags))  # pyright: ignore[reportPrivateUsage]
    assert (finding.what, finding.state) == ("engines", state)
    assert words in finding.found


def test_doctor_names_missing_keys_and_faults(keys_home: KeysHome) -> None:
    missing = findings("host=0.0.0.0")["access"]
    assert (missing.state, "access.allow" in missing.found) == ("bad", True)
    (keys_home.folder / "token").chmod(0o604)
    fault = findings(*BEYOND)["access"]
    assert (fault.state, "chmod 600" in fault.found) == ("bad", True)
    with pytest.raises(BadRequest):
        access_rules(load(None, {}, BEYOND))


def test_doctor_reports_a_daemon_that_refuses_this_user(
    tmp_path: Path, keys_home: KeysHome, start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = start_daemon(*BEYOND, more={"XDG_CONFIG_HOME": str(keys_home.config)})
    monkeypatch.setattr("timbred.cli.serve.ANSWER_TIMEOUT_S", TIMEOUT_S)
    settings = load(None, {}, [f"zmq.requests={daemon.requests}"])
    running = {finding.what: finding for finding in doctor._ports(settings)}  # pyright: ignore[reportPrivateUsage]
    assert running["daemon"].state == "good"
    assert running["access so far"].found.startswith(f"refused attempts ({AccessDenied.code}): ")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another user's"))
    (refused,) = doctor._ports(settings)  # pyright: ignore[reportPrivateUsage]
    assert (refused.state, "timbred keys make" in refused.remedy) == ("bad", True)


def test_demo_reports_a_daemon_that_does_not_allow_this_machine() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        connection = OscConnection(*daemon.getsockname())

        def refuse() -> None:
            _, client = daemon.recvfrom(1000)
            arguments = ("ping", AccessDenied.code, "OSC from 10.0.0.1 isn't allowed")
            daemon.sendto(write_message("/timbred/fail", arguments), client)

        answering = threading.Thread(target=refuse)
        answering.start()
        with pytest.raises(AccessDenied, match="OSC from 10"):
            connection.is_answered()
        answering.join()
        connection.close()


def test_serve_refuses_to_start_beyond_loopback_without_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setattr(os, "environ", {**os.environ, "TIMBRED_TAKES_FOLDER": str(tmp_path / "takes")})
    fails("serve", "--set", "host=0.0.0.0", *(word for port in PORTS for word in ("--set", f"{port}=0")))
    message = capsys.readouterr().err
    for part in ("timbred keys make", "access.allow", "access.open=true"):
        assert part in message


PORTS = ("osc.port", "zmq.requests", "zmq.events", "http.port")
