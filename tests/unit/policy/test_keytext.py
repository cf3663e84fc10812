# What is a key of the edge and what is none: every change of a character is seen, and nothing is guessed from a hash.
from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st
from support.keys import DERIVED

from edgeproxy.policy import keytext
from edgeproxy.policy.keytext import checksum, derive, hashed, make, pepper_id, wrong

SCANNER = re.compile(r"\bep-[0-9A-Za-z]{8}-[0-9A-Za-z]{46}\b")  # docs/keys.md
BASE62 = st.sampled_from("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
PARTS = st.text(BASE62, min_size=8, max_size=8), st.text(BASE62, min_size=40, max_size=40)
HEADS = st.builds(lambda key_id, secret: f"ep-{key_id}-{secret}".encode(), *PARTS)


def test_a_new_key() -> None:
    made = make()
    text = made.text.encode("ascii")
    assert len(text) == keytext.LENGTH and text[keytext.ID].decode() == made.id
    assert SCANNER.fullmatch(made.text) and wrong(text) is None
    assert made.text not in repr(made) and made.text[12:] not in str(made)
    again = make(made.id)
    assert again.id == made.id and again.text != made.text


@given(HEADS)
@example(b"ep-00000000-" + b"0" * 40)
def test_every_head_with_its_checksum_is_a_key(head: bytes) -> None:
    tail = checksum(head)
    assert len(tail) == 6 and tail.isalnum()
    assert wrong(head + tail) is None


def test_the_checksum_is_crc32_in_base62() -> None:
    # Written out, so that scanners elsewhere can be held against it.
    head = b"ep-Ab3dEf9h-" + b"0123456789abcdefghijklmnopqrstuvwxyzABCD"
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number = 0
    for char in checksum(head).decode():
        number = number * 62 + digits.index(char)
    import zlib

    assert number == zlib.crc32(head)


@given(HEADS, st.integers(3, 57), BASE62)
def test_a_typo_is_seen(head: bytes, at: int, char: str) -> None:
    text = head + checksum(head)
    changed = text[:at] + char.encode() + text[at + 1 :]
    assert (wrong(changed) is None) == (changed == text)


@given(HEADS, st.integers(11, 56))
def test_two_characters_in_the_wrong_order_are_seen(head: bytes, at: int) -> None:
    text = head + checksum(head)
    swapped = text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :]
    assert (wrong(swapped) is None) == (swapped == text)


@given(st.binary(max_size=200))
@example(b"")
@example(b"ep-")
@example(b"EP-00000000-")
def test_anything_else_is_foreign_or_malformed(text: bytes) -> None:
    assert wrong(text) == ("malformed" if text.startswith(b"ep-") else "foreign")


@given(HEADS, st.sampled_from([b" ", b"\n", b"x", b"\x00"]))
def test_a_key_has_nothing_around_it(head: bytes, more: bytes) -> None:
    text = head + checksum(head)
    assert wrong(text + more) == "malformed"
    assert wrong(more + text) == "foreign"
    assert wrong(text[:-1]) == "malformed"


def test_hashes_need_the_pepper() -> None:
    text = make().text.encode()
    other = derive(b"another pepper, also of more than 32 bytes")
    assert hashed(text, DERIVED) == hashed(text, DERIVED) != hashed(text, other)
    assert len(hashed(text, DERIVED)) == keytext.DIGEST
    assert pepper_id(DERIVED) != pepper_id(other) and len(pepper_id(other)) == 16
    assert derive(b" x\n") == derive(b"x")  # an editor's line break makes no other pepper
