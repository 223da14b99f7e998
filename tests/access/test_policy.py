"""Decisions about access: parsers of what strangers send, and tables that don't grow."""

import ipaddress
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.keys_home import TOKEN, KeysHome
from timbred.access.policy import (
    COOKIE_LIFETIME_S,
    LINK_LIFETIME_S,
    MAX_BURST_REPORTS,
    MAX_LINKS,
    MAX_SOURCES,
    MAX_VERDICTS,
    AllowList,
    Denials,
    OneTimeLinks,
    access_rules,
    is_cookie,
    is_equal,
    make_cookie,
    read_access_token,
    read_bearer,
    read_cookie,
)
from timbred.config import load
from timbred.errors import BadRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
ADDRESSES = st.ip_addresses()


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def unmapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, else the same."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


@given(st.lists(ADDRESSES, max_size=5), ADDRESSES)
def test_allow_list_allows_what_is_listed_and_loopback(listed: list[Address], other: Address) -> None:
    allow = AllowList(" ".join(map(str, listed)))
    assert all(allow.allows(str(address)) for address in listed)
    expected = unmapped(other) in map(unmapped, listed) or unmapped(other).is_loopback
    assert allow.allows(str(other)) is expected


@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4))
def test_allow_list_networks_contain_their_addresses(
    base: ipaddress.IPv4Address, bits: int, address: ipaddress.IPv4Address
) -> None:
    network = ipaddress.ip_network((base, bits), strict=False)
    allow = AllowList(str(network))
    assert allow.allows(str(address)) is (address in network or address.is_loopback)
    assert allow.allows(f"::ffff:{address}") is allow.allows(str(address))


@given(st.text(max_size=60))
def test_allow_list_reads_any_text_or_names_the_entry(text: str) -> None:
    try:
        AllowList(text)
    except BadRequest as error:
        assert error.message.startswith("access.allow: ")


@given(st.text(max_size=60))
def test_allow_list_allows_no_text_that_is_no_address(text: str) -> None:
    allowed = AllowList("192.168.1.0/24").allows(text)
    if allowed:
        ipaddress.ip_address(text.partition("%")[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("192.168.1.20/24", "may be 192.168.1.20 or 192.168.1.0/24"),
        ("rack.local", "got 'rack.local', allowed are numeric addresses"),
        ("10.0.0.0/33", "got '10.0.0.0/33'"),
        (" ".join(["10.0.0.1"] * 300), "300 entries"),
    ],
)
def test_allow_list_refuses_with_the_remedy(text: str, message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        AllowList(text)
    assert message in refused.value.message


def test_allow_list_remembers_a_bounded_number_of_addresses() -> None:
    allow = AllowList("10.0.0.0/8")
    for number in range(3 * MAX_VERDICTS):
        assert allow.allows(str(ipaddress.IPv4Address(0x0A000000 + number)))
        assert len(allow._verdicts) <= MAX_VERDICTS  # pyright: ignore[reportPrivateUsage]


def test_denials_report_a_source_once_for_each_transport(caplog: pytest.LogCaptureFixture) -> None:
    denials = Denials(Clock())
    assert [denials.record("OSC", "192.0.2.1", "no") for _ in range(3)] == [True, False, False]
    assert denials.record("HTTP", "192.0.2.1", "no")
    assert denials.count == 4
    assert caplog.text.count("access denied: OSC from 192.0.2.1: no") == 1


def test_denials_of_invented_sources_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    clock = Clock()
    denials = Denials(clock)
    told = sum(denials.record("OSC", str(ipaddress.IPv4Address(number)), "no") for number in range(20_000))
    assert told == MAX_BURST_REPORTS == len(denials) == len(caplog.records)
    assert denials.count == 20_000
    clock.now += 1.0
    assert sum(denials.record("OSC", f"2001:db8::{number}", "no") for number in range(100)) == 5
    for number in range(10_000):
        clock.now += 1.0
        denials.record("OSC", f"later {number}", "no")
        assert len(denials) <= MAX_SOURCES


def test_one_time_links_are_valid_once_and_for_a_time() -> None:
    clock = Clock()
    links = OneTimeLinks(clock)
    code = links.make()
    assert links.is_valid(code)
    assert links.use(code)
    assert not links.use(code)
    late = links.make()
    clock.now += LINK_LIFETIME_S
    assert not links.is_valid(late)
    codes = [links.make() for _ in range(3 * MAX_LINKS)]
    assert [links.is_valid(code) for code in codes] == [False] * (2 * MAX_LINKS) + [True] * MAX_LINKS


@given(st.text(max_size=50), st.text(max_size=50))
def test_is_equal_compares_any_texts(one: str, other: str) -> None:
    assert is_equal(one, other) is (one == other)


@given(st.text(max_size=80))
def test_read_bearer_reads_any_text(text: str) -> None:
    token = read_bearer(text)
    assert token is None or (token in text and token.isascii())


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Bearer abc", "abc"),
        ("bearer   abc== ", "abc=="),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearer a b", None),
        ("Basic abc", None),
        ("Bearer a=b", None),
        ("Bearerabc", None),
    ],
)
def test_read_bearer_takes_one_token(header: str, expected: str | None) -> None:
    assert read_bearer(header) == expected


@given(st.text(max_size=80))
def test_read_cookie_reads_any_text(text: str) -> None:
    value = read_cookie(text, "timbred")
    assert value is None or value in text


def test_is_cookie_accepts_its_own_until_the_end() -> None:
    cookie = make_cookie(TOKEN, 1000.0)
    assert is_cookie(cookie, TOKEN, 1000.0)
    assert is_cookie(cookie, TOKEN, 1000.0 + COOKIE_LIFETIME_S - 1)
    assert not is_cookie(cookie, TOKEN, 1000.0 + COOKIE_LIFETIME_S)
    assert not is_cookie(cookie, TOKEN + "x", 1000.0)
    end, number, code = cookie.split(".")
    assert not is_cookie(f"{int(end, 16) + 1:x}.{number}.{code}", TOKEN, 1000.0)
    assert not is_cookie(f"{end}.{number[::-1]}.{code}", TOKEN, 1000.0)


@given(st.text(max_size=150))
def test_is_cookie_refuses_any_other_text(text: str) -> None:
    assert not is_cookie(text, TOKEN, 1000.0)


def test_access_rules_name_everything_that_is_missing(keys_home: KeysHome) -> None:
    (keys_home.folder / "own.key").unlink()
    (keys_home.folder / "token").unlink()
    with pytest.raises(BadRequest) as refused:
        access_rules(load(None, {}, ["host=0.0.0.0"]))
    for part in ("timbred keys make", "access.token", "access.allow", "--set access.open=true", "host=127.0.0.1"):
        assert part in refused.value.message
    with pytest.raises(BadRequest, match=r"0\.0\.0\.0 can be reached") as refused:
        access_rules(load(None, {}, ["host=0.0.0.0", f"access.token={TOKEN}", "access.allow=10.0.0.1"]))
    assert "OSC has" not in refused.value.message
    assert TOKEN not in refused.value.message


def test_access_rules_have_keys_token_and_addresses(keys_home: KeysHome) -> None:
    rules = access_rules(load(None, {}, ["host=0.0.0.0", "access.allow=10.0.0.1, 10.1.0.0/16"]))
    assert rules.own == keys_home.own
    assert rules.token == TOKEN
    assert rules.allow.allows("10.1.2.3")
    assert TOKEN not in repr(rules)


def test_allow_list_may_be_a_list_in_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "timbred.toml"
    file.write_text('[access]\nallow = ["10.0.0.1", "10.1.0.0/16"]\n', "ascii")
    allow = AllowList(load(file, {}, [])["access.allow"])
    assert [allow.allows(address) for address in ("10.0.0.1", "10.1.9.9", "10.2.0.1")] == [True, True, False]


def test_access_token_is_in_no_message_about_settings() -> None:
    with pytest.raises(BadRequest) as refused:
        load(None, {}, [f"access.token={TOKEN}\0"])
    assert TOKEN not in refused.value.message


def test_read_access_token_prefers_the_setting(keys_home: KeysHome) -> None:
    other = "another-token-0123456789"
    assert read_access_token(load(None, {}, [f"access.token={other}"])) == other
    assert read_access_token(load(None, {"TIMBRED_ACCESS_TOKEN": other}, [])) == other
    assert read_access_token(load(None, {}, [])) == TOKEN
    with pytest.raises(BadRequest, match="token of 5 characters") as refused:
        read_access_token(load(None, {}, ["access.token=short"]))
    assert "short" not in refused.value.message
    assert keys_home.folder.exists()
