"""Puzzles and clearances: what is right passes, and what is changed, late, of others or used for another host does not."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.config.challenge import Challenge
from edgeproxy.policy import challenge
from edgeproxy.policy.challenge import COOKIE, COOKIE_QUIC, PARTS, SOLVED, WAITED, Challenger, Holder, Passed, Puzzle, holder

NOW = 1_800_000_000.0
JA4 = "t13d1517h2_8daaf6152771_cb7bf5808d99"
SOCKET = "t13d1516h1_8daaf6152771_0123456789ab"  # the same browser's, for a WebSocket
WHOM = holder("192.0.2.1", JA4, "example.org")
OTHERS = [
    (holder("192.0.2.2", JA4, "example.org"), "other_address"),
    (holder("192.0.2.1", "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6", "example.org"), "other_client"),
    (holder("192.0.2.1", "", "example.org"), "other_client"),
    (holder("192.0.2.1", JA4, "www.example.org"), "other_host"),
]


def challenger(**settings: Any) -> Challenger:
    return Challenger(Challenge.model_validate({"unscored_bits": 8, **settings}))


def solution(puzzle: Puzzle) -> bytes:
    seed, nonces, limit = hashlib.sha256(puzzle.token).digest(), b"", (1 << 256 - puzzle.bits).to_bytes(32, "big")
    for part in range(PARTS):
        nonce = 0
        while hashlib.sha256(seed + bytes([part]) + nonce.to_bytes(4, "big")).digest() >= limit:
            nonce += 1
        nonces += nonce.to_bytes(4, "big")
    return base64.urlsafe_b64encode(nonces).rstrip(b"=")


ONE = challenger()
PUZZLE = ONE.puzzle(WHOM, 0, NOW)
SOLUTION = solution(PUZZLE)


def test_who_solves_it_passes() -> None:
    found = ONE.check(PUZZLE.token, SOLUTION, WHOM, NOW + 3)
    assert isinstance(found, Passed)
    assert (found.level, found.bits, found.score, found.seconds) == (SOLVED, 8, 0, 3)
    assert len(found.once) == 16 and found.expires == PUZZLE.expires
    again = ONE.check(PUZZLE.token, SOLUTION, WHOM, NOW + 4)
    assert isinstance(again, Passed) and again.once == found.once, "a second time is told by its name"
    other = ONE.puzzle(WHOM, 0, NOW)
    assert ONE.check(other.token, SOLUTION, WHOM, NOW) == "wrong", "a solution is of one puzzle"


def test_a_token_written_otherwise_is_the_same_puzzle() -> None:
    """Texts of base64 that differ in bits that stand for nothing."""
    token = PUZZLE.token
    assert len(token) % 4 in (0, 2, 3)
    names = set()
    for letter in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        text = token[:-1] + bytes([letter])
        found = ONE.check(text, solution(PUZZLE._replace(token=text)), WHOM, NOW)
        if isinstance(found, Passed):
            names.add(found.once)
    assert len(names) == 1


@pytest.mark.parametrize(("other", "reason"), OTHERS)
def test_a_puzzle_is_for_one_client(other: Holder, reason: str) -> None:
    assert ONE.check(PUZZLE.token, SOLUTION, other, NOW) == reason


def test_a_puzzle_ends() -> None:
    assert isinstance(ONE.check(PUZZLE.token, SOLUTION, WHOM, PUZZLE.expires - 1), Passed)
    assert ONE.check(PUZZLE.token, SOLUTION, WHOM, PUZZLE.expires) == "expired"


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_token_that_was_changed(at: int, by: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(PUZZLE.token + b"=" * (-len(PUZZLE.token) % 4)))
    raw[at % len(raw)] ^= by
    token = base64.urlsafe_b64encode(raw).rstrip(b"=")
    assert ONE.check(token, SOLUTION, WHOM, NOW) == "unreadable"


@given(st.binary(max_size=700), st.one_of(st.none(), st.binary(max_size=200)))
def test_rubbish_is_refused(token: bytes, handed_in: bytes | None) -> None:
    assert ONE.check(token, handed_in, WHOM, NOW) == "unreadable"
    if handed_in is not None:
        assert ONE.check(PUZZLE.token, handed_in, WHOM, NOW) == "wrong"


@given(st.integers(0, PARTS - 1), st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_every_part_has_to_be_right(part: int, nonce: int) -> None:
    nonces = bytearray(base64.urlsafe_b64decode(SOLUTION + b"=="))
    nonces[4 * part : 4 * part + 4] = nonce.to_bytes(4, "big")
    text = base64.urlsafe_b64encode(nonces).rstrip(b"=")
    seed = hashlib.sha256(PUZZLE.token).digest()
    right = hashlib.sha256(seed + bytes([part]) + nonce.to_bytes(4, "big")).digest()[0] < 16
    assert isinstance(ONE.check(PUZZLE.token, text, WHOM, NOW), Passed) is right


def test_difficulty_by_score() -> None:
    made = challenger(difficulties=[{"up_to": 9, "bits": 20}, {"up_to": 99, "bits": 12}], unscored_bits=15)
    assert [made.bits(score) for score in (0, 1, 9, 10, 99)] == [15, 20, 20, 12, 12]
    assert made.puzzle(WHOM, 5, NOW).bits == 16
    found = made.check((easy := made.puzzle(WHOM, 50, NOW)).token, solution(easy), WHOM, NOW)
    assert isinstance(found, Passed) and (found.bits, found.score) == (12, 50)


def test_who_waits() -> None:
    made = challenger(no_script={"wait": "20s", "least_score": 5})
    puzzle = made.puzzle(WHOM, 0, NOW)
    assert puzzle.wait == 20
    assert made.check(puzzle.token, None, WHOM, NOW + 19) == "early"
    assert made.until(puzzle.token, NOW + 15) == 6 and made.until(b"x", NOW) == 0
    found = made.check(puzzle.token, None, WHOM, NOW + 20)
    assert isinstance(found, Passed) and found.level == WAITED
    assert made.puzzle(WHOM, 4, NOW).wait == 0 and made.puzzle(WHOM, 5, NOW).wait == 20
    strict = made.puzzle(WHOM, 50, NOW, SOLVED)
    assert made.check(strict.token, None, WHOM, NOW + 100) == "no_waiting"
    assert challenger(no_script={"enabled": False}).puzzle(WHOM, 0, NOW).wait == 0


def cleared(level: int = SOLVED, ja4: str = JA4, whom: Holder = WHOM) -> list[tuple[bytes, bytes]]:
    return [(b"cookie", b"a=b; " + ONE.clear(level, whom, ja4, NOW).partition(b";")[0])]


def test_a_clearance() -> None:
    cookie = ONE.clear(SOLVED, WHOM, JA4, NOW)
    assert cookie.startswith(b"__Host-") and cookie.endswith(b"; Path=/; Max-Age=1800; Secure; HttpOnly; SameSite=Lax")
    assert ONE.level(cleared(), WHOM, JA4, NOW + 1799) == SOLVED
    assert ONE.level(cleared(), WHOM, JA4, NOW + 1800) == "expired"
    assert ONE.level(cleared(WAITED), WHOM, JA4, NOW + 299) == WAITED
    assert ONE.level(cleared(WAITED), WHOM, JA4, NOW + 300) == "expired"
    assert ONE.level([], WHOM, JA4, NOW) == 0


@pytest.mark.parametrize(("other", "reason"), OTHERS)
def test_a_clearance_is_for_one_client(other: Holder, reason: str) -> None:
    assert ONE.level(cleared(), other, JA4, NOW) == reason


@given(st.integers(0, 130), st.booleans())
def test_a_clearance_that_was_cut_or_changed(at: int, cut: bool) -> None:
    name, _, text = cleared()[0][1].removeprefix(b"a=b; ").partition(b"=")
    at %= len(text) - 1  # not the last letter: some of its bits stand for nothing
    changed = text[:at] if cut else text[:at] + (b"A" if text[at : at + 1] != b"A" else b"B") + text[at + 1 :]
    assert ONE.level([(b"cookie", name + b"=" + changed)], WHOM, JA4, NOW) == "unreadable"


def test_tokens_and_clearances_are_not_each_other() -> None:
    assert ONE.level([(b"cookie", COOKIE + b"=" + PUZZLE.token)], WHOM, JA4, NOW) == "unreadable"
    text = cleared()[0][1].partition(b"clearance=")[2]
    assert ONE.check(text, None, WHOM, NOW) == "unreadable"


def test_one_that_is_right_among_several() -> None:
    good = cleared()[0][1]
    assert ONE.level([(b"cookie", COOKIE + b"=old; " + good)], WHOM, JA4, NOW) == SOLVED


def test_a_websocket_of_the_same_browser_has_the_same_ciphers() -> None:
    socket = holder("192.0.2.1", SOCKET, "example.org")
    assert ONE.level(cleared(), socket, SOCKET, NOW) == "other_client"
    assert ONE.level(cleared(), socket, SOCKET, NOW, upgrade=True) == SOLVED
    curl = holder("192.0.2.1", "t13d3112h1_e8f1e7e78f70_b26ce05bbdd6", "example.org")
    assert ONE.level(cleared(), curl, SOCKET, NOW, upgrade=True) == "other_client"


def test_quic_has_a_clearance_of_its_own() -> None:
    quic = "q13d0312h3_55b375c5d22e_06cda9e17597"
    whom = holder("192.0.2.1", quic, "example.org")
    both = [*cleared(), *cleared(ja4=quic, whom=whom)]
    assert COOKIE_QUIC in both[1][1]
    assert ONE.level(both, WHOM, JA4, NOW) == ONE.level(both, whom, quic, NOW) == SOLVED
    assert ONE.level(both[:1], whom, quic, NOW) == 0, "it is asked, not refused"


@pytest.mark.parametrize(("one", "other", "same"), [
    ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", True), ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
    ("::ffff:192.0.2.1", "192.0.2.1", True), ("192.0.2.1", "192.0.2.2", False), ("", "", True), ("::1", "0.0.0.1", False),
])  # fmt: skip
def test_networks(one: str, other: str, same: bool) -> None:
    assert (holder(one, "", "h").network == holder(other, "", "h").network) is same


def test_what_a_script_is_given() -> None:
    shown = PUZZLE.shown("/p")
    assert shown == {
        "path": "/p", "token": PUZZLE.token.decode(), "seed": hashlib.sha256(PUZZLE.token).hexdigest(), "bits": 4, "count": 16,
        "expires": int(NOW) + 315,
    }  # fmt: skip


def test_paths_of_ours() -> None:
    assert ONE.serves(b"/.edge/challenge?x") == "/.edge/challenge" and ONE.serves(b"/.edge/challenge.js") == "/.edge/challenge.js"
    assert ONE.serves(b"/.edge/challenges") is None and ONE.serves(b"*") is None
    assert {challenge.WAITED, challenge.SOLVED} == set(challenge.LEVELS.values())
