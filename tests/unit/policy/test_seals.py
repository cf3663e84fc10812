"""Seals: nothing opens but what was sealed, for the same purpose, with a secret that is known, today or yesterday."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy import seals
from edgeproxy.policy.seals import DAY, MAX_TEXT, Seals, decoded, values_of

NOW = 1_800_000_000.0
ONE, TWO = b"1" * 32, b"2" * 32


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=60))
def test_what_was_sealed_opens_and_nothing_else_does(content: bytes, noise: bytes) -> None:
    made = Seals([ONE], b"a")
    text = made.seal(content, NOW)
    assert made.open(text, NOW) == content
    assert len(content) < 8 or content not in text
    assert made.open(noise, NOW) is None
    for other in (Seals([TWO], b"a"), Seals([ONE], b"b"), Seals([], b"a")):
        assert other.open(text, NOW) is None
    for at in range(len(text)):
        changed = text[:at] + (b"A" if text[at : at + 1] != b"A" else b"B") + text[at + 1 :]
        # The bits of the last letter that stand for nothing may differ: the bytes are the same then.
        assert made.open(changed, NOW) is None or decoded(changed) == decoded(text)
        assert made.open(text[:at], NOW) is None


def test_two_seals_of_the_same_are_not_the_same() -> None:
    made = Seals([ONE], b"a")
    assert made.seal(b"x", NOW) != made.seal(b"x", NOW)


def test_keys_change_every_day_and_open_for_another() -> None:
    made = Seals([ONE], b"a")
    text = made.seal(b"x", NOW)
    midnight = (NOW // DAY + 1) * DAY
    assert made.open(text, midnight + DAY - 1) == b"x", "until the end of the day after"
    assert made.open(text, midnight + DAY) is None
    assert made.open(text, NOW - DAY) == b"x", "another edge's clock may be behind"
    assert made.open(text, NOW - 3 * DAY) is None
    assert made.open(text, NOW + 256 * DAY) is None, "the number of the day is written in a byte"


def test_secrets_are_changed_with_an_overlap() -> None:
    text = Seals([ONE], b"a").seal(b"x", NOW)
    both = Seals([TWO, ONE], b"a")
    assert both.open(text, NOW) == b"x"
    assert Seals([TWO], b"a").open(both.seal(b"y", NOW), NOW) == b"y", "the first one seals"


def test_without_a_secret_it_is_that_of_this_start() -> None:
    assert len(seals.OF_THIS_START) == 32
    assert Seals([], b"a").open(Seals([seals.OF_THIS_START], b"a").seal(b"x", NOW), NOW) == b"x"


def test_keys_that_are_kept_are_few() -> None:
    made = Seals([ONE], b"a")
    for day in range(200):
        made.seal(b"x", NOW + day * DAY)
    assert len(made._keys) <= seals._KEPT


@pytest.mark.parametrize("text", [b"", b"A", b"AAAAA", b"AA=", b"A A", b"AA+/", b"A" * (MAX_TEXT + 1), b"\xff\xfe"])
def test_what_is_no_text_of_ours(text: bytes) -> None:
    assert decoded(text) is None
    assert Seals([ONE], b"a").open(text, NOW) is None


def test_cookies() -> None:
    assert values_of(b"a=1; b=2;a=3; xa=4; a", b"a") == [b"1", b"3", b""]
    assert values_of(b"b=a", b"a") == []
    assert values_of(b";".join([b"a=1"] * 100), b"a") == [b"1"] * 4
