# Files of networks in all formats, and that none makes everybody a bot.
"""bots/ranges.py and bots/names.py."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.bots import ranges
from edgeproxy.bots.names import (
    MAX_ADDRESSES,
    NEGATIVE,
    POSITIVE,
    STALE,
    UNSURE,
    Names,
    candidates,
    confirms,
    ends_with,
    reverse_name,
)
from edgeproxy.bots.ranges import MAX_FILE, MAX_NETWORKS, is_name, kept, parse, read_folder
from edgeproxy.rules.addresses import client_code, show_range

GOOGLE = {"creationTime": "2026-01-01T00:00:00", "prefixes": [{"ipv6Prefix": "2001:db8:1::/64"}, {"ipv4Prefix": "192.0.2.0/27"}]}


def code(text: str) -> int:
    found = client_code(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (GOOGLE, ["2001:db8:1::/64", "192.0.2.0/27"]),
        ({"prefixes": [{"ip_prefix": "192.0.2.0/24", "region": "x"}], "ipv6_prefixes": [{"ipv6_prefix": "2001:db8::/32"}]},
         ["192.0.2.0/24", "2001:db8::/32"]),
        ({"ips": [{"ip_address": "192.0.2.7"}]}, ["192.0.2.7"]),
        (["192.0.2.0/24", "2001:db8::1"], ["192.0.2.0/24", "2001:db8::1"]),
        ({"v4": ["192.0.2.1"], "data": {"nested": [["198.51.100.0/24"]]}}, ["192.0.2.1", "198.51.100.0/24"]),
        ({"prefixes": [{"ipv4Prefix": "192.0.2.9/24"}]}, ["192.0.2.0/24"]),
    ],
)  # fmt: skip
def test_formats(value: object, shown: list[str]) -> None:
    parsed = parse(json.dumps(value).encode())
    assert [show_range(*each) for each in parsed.ranges] == shown and parsed.problems == ()


def test_text() -> None:
    parsed = parse(b"# Their networks\n192.0.2.0/24  # a comment\r\n\n2001:db8::/32\n")
    assert [show_range(*each) for each in parsed.ranges] == ["192.0.2.0/24", "2001:db8::/32"] and parsed.problems == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0.0.0.0/0", "too wide"), ("::/0", "too wide"), ("10.0.0.0/8", "too wide"), ("2001:db8::/20", "too wide"),
        ("192.0.2.0/33", "not a network"),
        ("192.0.2.0/-1", "not a network"), ("192.0.2.0/x", "not a network"), ("192.0.2", "not a network"),
        ("example.com", "not a network"),
        ("192.0.2.0/24/1", "not a network"), ("", "not a network"),
    ],
)  # fmt: skip
def test_networks_that_are_left_out(text: str, problem: str) -> None:
    parsed = parse(json.dumps({"prefixes": [{"ipv4Prefix": text}, {"ipv4Prefix": "192.0.2.1"}]}).encode())
    assert [show_range(*each) for each in parsed.ranges] == ["192.0.2.1"]
    assert len(parsed.problems) == 1 and problem in parsed.problems[0]


def test_bounds() -> None:
    assert parse(b" " * (MAX_FILE + 1)).ranges == ()
    many = parse(json.dumps(["192.0.2.1"] * (MAX_NETWORKS + 1)).encode())
    assert len(many.ranges) == MAX_NETWORKS and "rest is left out" in many.problems[0]
    assert parse(b"[" * 100_000).ranges == ()
    assert parse(b"{}").problems == ("no networks",)
    assert len(parse(json.dumps(["x"] * 1000).encode()).problems) == 20


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'{"prefixes": [\n  {"ipv4Prefix": }]}', "line 2, column 18: no JSON"),
        (b'\xef\xbb\xbf\n ["192.0.2.0/24",', "column 18: no JSON"),
        (b'["192.0.2.0/24"', "line 1, column 16: no JSON"),
        (b'["\xff\xfe"]', "byte 2: no text"),
        (b"[" * 100_000, "too many brackets"),
        (b"# theirs\n\nexample.com\n", "line 3: 'example.com' is not a network"),
    ],
)
def test_where_a_file_is_wrong(data: bytes, problem: str) -> None:
    parsed = parse(data)
    assert parsed.ranges == () and len(parsed.problems) == 1 and problem in parsed.problems[0]


_KEYS = st.sampled_from(["prefixes", "ipv4Prefix", "x"])
_JSON = st.recursive(
    st.none() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
)


@given(st.binary(max_size=300) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_any_file(data: bytes) -> None:
    assert all(first <= last for first, last in parse(data).ranges)


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "googlebot.json").write_text(json.dumps(GOOGLE))
    (tmp_path / "other.txt").write_text("198.51.100.0/24\n")
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "unasked.json").write_text('["203.0.113.0/24"]')
    os.utime(tmp_path / "other.txt", (5, 5))
    found = read_folder(tmp_path, ["googlebot", "other", "bad", "absent"])
    assert found.missing == ("absent",) and found.problems == ("bad.json: no networks",) and found.oldest == 5
    assert found.covers(["googlebot"], code("192.0.2.31")) and not found.covers(["googlebot"], code("192.0.2.32"))
    assert found.covers(["absent", "googlebot"], code("2001:db8:1::5")) and not found.covers(["other"], code("192.0.2.1"))
    assert found.covers(["googlebot"], code("::ffff:192.0.2.1")), "an IPv4 client of an IPv6 socket"
    assert not found.covers(["googlebot", "other"], code("203.0.113.1"))
    assert found.known(["googlebot", "other"]) and not found.known(["googlebot", "absent"]) and found.known([])
    assert read_folder(tmp_path / "absent", ["googlebot"]).missing == ("googlebot",)
    (tmp_path / "dir.json").mkdir()
    assert read_folder(tmp_path, ["dir"]).missing == ("dir",)


def renamed(path: Path, text: str) -> None:
    """Puts a file in place as `edgeproxy bots fetch` does."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def test_only_what_has_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    monkeypatch.setattr(ranges, "parse", lambda data: read.append(data) or parse(data))  # type: ignore[func-returns-value]
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text('["192.0.2.0/24"]')
    first = read_folder(tmp_path, ["a", "b", "c"])
    assert len(read) == 2 and not first.is_stale()
    renamed(tmp_path / "a.json", '["198.51.100.0/24"]')  # of the same size
    assert first.is_stale()
    second = read_folder(tmp_path, ["a", "b", "c"], first)
    assert len(read) == 3 and second.files["b"] is first.files["b"] and not second.is_stale()
    assert second.covers(["a"], code("198.51.100.1")) and not second.covers(["a"], code("192.0.2.1"))
    assert first.covers(["a"], code("192.0.2.1")), "who has asked the first one sees no other"
    (tmp_path / "c.txt").write_text("203.0.113.0/24")
    assert second.is_stale()
    third = read_folder(tmp_path, ["a", "b", "c"], second)
    assert third.missing == () and third.covers(["c"], code("203.0.113.1")) and len(read) == 4
    (tmp_path / "b.json").unlink()
    assert third.is_stale()
    fourth = read_folder(tmp_path, ["a", "b", "c"], third)
    assert fourth.missing == ("b",) and not fourth.known(["b"]) and len(read) == 4
    os.chmod(tmp_path / "c.txt", 0o600)  # noqa: PTH101  what changes its rights and no content
    assert fourth.is_stale(), "who may read it at last reads it"


@pytest.mark.parametrize("text", ["", "{}", '{"prefixes": [', '["10.0.0.0/8"]', "x" * 10])
def test_a_broken_file_leaves_the_last_good_one_in_use(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('["192.0.2.0/24"]')
    os.utime(file, (5, 5))
    good = read_folder(tmp_path, ["a"])
    assert good.broken == 0 and good.oldest == 5
    renamed(file, text)
    broken = read_folder(tmp_path, ["a"], good)
    assert broken.covers(["a"], code("192.0.2.1")) and broken.broken == 1 and broken.oldest == 5 and len(broken.problems) == 1
    assert not broken.is_stale(), "it is not read again until it changes"
    again = read_folder(tmp_path, ["a"])
    assert not again.known(["a"]) and again.broken == 1, "who begins now has nothing"
    carried = kept(again, good)
    assert carried.covers(["a"], code("192.0.2.1")) and carried.broken == 1 and carried.oldest == 5
    renamed(file, '["198.51.100.0/24"]')
    fine = read_folder(tmp_path, ["a"], carried)
    assert fine.covers(["a"], code("198.51.100.1")) and not fine.covers(["a"], code("192.0.2.1")) and fine.broken == 0


def test_a_folder_that_is_away(tmp_path: Path) -> None:
    folder, away = tmp_path / "ranges", tmp_path / "away"
    folder.mkdir()
    (folder / "a.json").write_text('["192.0.2.0/24"]')
    good = read_folder(folder, ["a", "b"])
    folder.rename(away)
    assert good.is_stale()
    gone = read_folder(folder, ["a", "b"], good)
    assert gone.covers(["a"], code("192.0.2.1")) and gone.gone and gone.broken == 1 and not gone.is_stale()
    assert kept(read_folder(folder, ["a", "b"]), good).covers(["a"], code("192.0.2.1"))
    away.rename(folder)
    assert gone.is_stale()
    back = read_folder(folder, ["a", "b"], gone)
    assert not back.gone and back.broken == 0 and back.files["a"] is good.files["a"] and back.missing == ("b",)
    elsewhere = read_folder(tmp_path, ["a"], back)
    assert not elsewhere.known(["a"]) and kept(elsewhere, back) is elsewhere, "another folder's are not carried over"


def test_what_cannot_be_looked_at_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without rights, a network's file system that fails: the last good files stay in use, and it is told."""
    (tmp_path / "a.json").write_text('["192.0.2.0/24"]')
    good, real = read_folder(tmp_path, ["a", "b"]), Path.stat

    def refused(path: Path, **more: bool) -> os.stat_result:
        if path.name == "a.json":
            raise PermissionError(13, "Permission denied")
        return real(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", refused)
        patch.setattr(Path, "open", lambda path, mode: refused(path))
        assert good.is_stale()
        found = read_folder(tmp_path, ["a", "b"], good)
        assert found.covers(["a"], code("192.0.2.1")) and found.missing == ("b",) and not found.is_stale()
        assert found.broken == 1 and found.problems == ("a.json: cannot be read: Permission denied",)
    assert found.is_stale()
    back = read_folder(tmp_path, ["a", "b"], found)
    assert back.broken == 0 and back.problems == ()


def test_a_folder_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text('["192.0.2.0/24"]')
    good = read_folder(tmp_path, ["a"])

    def refused(path: Path, **_: bool) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refused)
    assert good.is_stale()
    gone = read_folder(tmp_path, ["a"], good)
    assert gone.gone and gone.covers(["a"], code("192.0.2.1")) and not gone.is_stale()
    assert read_folder(tmp_path, ["a"]).gone, "nothing raises"


def test_few_problems_are_kept_and_each_is_one_line() -> None:
    assert len(parse(b"x\n" * 100_000).problems) == 20
    (problem,) = parse(json.dumps(["a\nb\x1b[2J"]).encode()).problems
    assert problem.isprintable()


def test_names_of_files() -> None:
    assert is_name("googlebot") and is_name("google-agents.2")
    assert not any(map(is_name, ("", "../x", "a/b", "A", ".x", "a..b", "x" * 65)))


# Names of hosts


def test_what_is_asked() -> None:
    assert reverse_name(code("192.0.2.5")) == "5.2.0.192.in-addr.arpa"
    assert reverse_name(code("2001:db8::1")) == "1." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa"
    assert reverse_name(code("::ffff:192.0.2.5")) == "5.2.0.192.in-addr.arpa"


def test_candidates() -> None:
    suffixes = ("googlebot.com", "search.msn.com")
    assert candidates(["crawl-1.GoogleBot.com.", "a.example"], suffixes) == ("crawl-1.googlebot.com",)
    for wrong in ("googlebot.com", "evilgooglebot.com", "googlebot.com.evil.example",
                  ".googlebot.com", "a..googlebot.com", "a b.googlebot.com",
                  "a/b.googlebot.com", "x" * 64 + ".googlebot.com", "a." * 130 + "googlebot.com",
                  "a\n.googlebot.com", "é.googlebot.com", ""):  # fmt: skip
        assert candidates([wrong], suffixes) == (), wrong
    assert len(candidates([f"a{n}.googlebot.com" for n in range(100)], suffixes)) == 4
    assert candidates(["a.googlebot.com"] * 9, suffixes) == ("a.googlebot.com",)
    assert not ends_with("googlebot.com", ["googlebot.com"])


def test_confirmation() -> None:
    assert confirms(code("192.0.2.5"), ["198.51.100.1", "192.0.2.5"])
    assert confirms(code("2001:db8::1"), ["2001:0db8:0:0::1"])
    assert not confirms(code("192.0.2.5"), []) and not confirms(code("192.0.2.5"), ["192.0.2.50", "2001:db8::1", "x", ""])


def test_what_is_known_of_addresses() -> None:
    wanted: list[int] = []

    def want(asked: int) -> bool:
        wanted.append(asked)
        return True

    names, address = Names(want), code("192.0.2.5")
    assert names.of(address, 0.0) is None and wanted == [address]
    assert names.of(address, 1.0) is None and len(wanted) == 1, "asked once"
    names.put(address, ("a.googlebot.com",), 2.0)
    assert names.of(address, 2.0 + POSITIVE - 1) == ("a.googlebot.com",)
    assert names.of(address, 2.0 + POSITIVE) == ("a.googlebot.com",) and len(wanted) == 2, "until there is another answer"
    assert names.of(address, 2.0 + POSITIVE + UNSURE + STALE) is None and len(wanted) == 3, "but not for ever"
    names.put(address, (), 0.0)
    assert names.of(address, NEGATIVE - 1) == () and names.of(address, NEGATIVE) is None and len(wanted) == 4
    names.put(address, None, 0.0)
    assert names.of(address, UNSURE - 1) is None and len(wanted) == 4
    assert names.of(address, UNSURE) is None and len(wanted) == 5


def test_addresses_are_bounded() -> None:
    names = Names(lambda _: False)
    for number in range(MAX_ADDRESSES + 10):
        names.of(number, 0.0)
    assert len(names) == MAX_ADDRESSES
