# ClientHellos of real clients and of nobody: what they say, what they are called, and that nothing of it raises.
"""listen/hello.py."""

from __future__ import annotations

import hashlib
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hellos import UNSTABLE, VECTORS, alpn, made, records, sigalgs, sized, slow_ja4, two, vector_of, versions
from support.shared import shared

from bench import hellos
from edgeproxy.listen.hello import GREASE, MAX_MESSAGE, NOTHING, Hello, from_records, ja3, ja4, ja4_normal, read_hello

NUMBERS = st.lists(st.one_of(st.integers(0, 0xFFFF), st.sampled_from(sorted(GREASE))), max_size=120)
NAMES = st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=4)


def read(message: bytes) -> Hello:
    hello = read_hello(message)
    assert hello is not None
    return hello


@pytest.mark.parametrize("vector", VECTORS, ids=lambda each: each["client"])
def test_real_clients(vector: dict[str, str]) -> None:
    message, kind = bytes.fromhex(vector["client_hello"]), vector["transport"][0]
    hello = read(message)
    assert ja4(hello, kind if kind == "q" else "t") == vector["ja4"] == slow_ja4(message, kind)
    assert ja4_normal(hello, kind if kind == "q" else "t") == vector["ja4n"] == slow_ja4(message, kind, UNSTABLE)
    assert ja3(hello) == vector["ja3"]


def test_foxios_vectors() -> None:
    vectors = json.loads(shared("ja4/client_hellos.json").read_text())
    assert len(vectors) >= 8
    for vector in vectors:
        message = bytes.fromhex(vector["client_hello"])
        assert ja4(read(message), "q" if vector["transport"] == "quic" else "t") == vector["ja4"]


def test_what_chromium_says() -> None:
    """The fields of one hello whose clear text is known: Debian's Chromium 156."""
    hello = read(bytes.fromhex(vector_of("chromium")["client_hello"]))
    assert hello.version == 0x0303
    assert hello.versions[0] in GREASE
    assert hello.versions[1:] == (0x0304, 0x0303)
    assert hello.session == 32
    assert hello.ciphers[0] in GREASE
    assert hello.methods == b"\0"
    assert hello.extensions[0] in GREASE
    assert hello.extensions[-1] in GREASE
    assert {0x0000, 0x44CD, 0xFE0D, 0x001B} <= set(hello.extensions)
    assert hello.sni
    assert hello.alpn == (b"h2", b"http/1.1")
    assert hello.groups[1:] == (0x11EC, 0x001D, 0x0017, 0x0018), "X25519MLKEM768 before the curves"
    assert hello.shares[1:] == (0x11EC, 0x001D)
    assert hello.formats == (0,)
    assert hello.compressions == (2,)
    assert hello.parameters == b""


def test_the_parameters_of_quic() -> None:
    quic = [each for each in VECTORS if each["transport"] == "quic"]
    assert quic
    for vector in quic:
        hello = read(bytes.fromhex(vector["client_hello"]))
        assert hello.parameters
        assert hello.session == 0
        assert hello.alpn[0] == b"h3"


@given(
    ciphers=NUMBERS, version=st.sampled_from([0x0301, 0x0302, 0x0303, 0x0304, 0x7F1C]), kind=st.sampled_from(["t", "q"]),
    others=NUMBERS, names=st.none() | NAMES, algorithms=st.none() | NUMBERS, offered=st.none() | NUMBERS, sni=st.booleans(),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_two_computations_agree(
    ciphers: list[int], version: int, kind: str, others: list[int], names: list[bytes] | None,
    algorithms: list[int] | None, offered: list[int] | None, sni: bool, seed: int,
) -> None:  # fmt: skip
    extensions = [(each, b"") for each in others if each not in {0x00, 0x0D, 0x10, 0x2B}]
    extensions += [(0, b"\0\0")] * sni
    extensions += [alpn(*names)] if names is not None else []
    extensions += [sigalgs(*algorithms)] if algorithms is not None else []
    extensions += [versions(*offered)] if offered is not None else []
    random.Random(seed).shuffle(extensions)
    message = made(ciphers, extensions, version=version)
    hello = read(message)
    assert ja4(hello, "q" if kind == "q" else "t") == slow_ja4(message, kind)
    assert ja4_normal(hello, "q" if kind == "q" else "t") == slow_ja4(message, kind, UNSTABLE)


@pytest.mark.parametrize(("name", "ends"), [
    (b"h2", "h2"), (b"http/1.1", "h1"), (b"x", "xx"), (b"+x-", "2d"), (b"\x0a\x0a", "0a"), (b"h-", "6d"), ("hé".encode(), "69"),
])  # fmt: skip
def test_ends_of_alpn(name: bytes, ends: str) -> None:
    assert ja4(read(made(extensions=[alpn(name, b"h2")])), "t")[8:10] == ends


def test_empty_lists() -> None:
    assert ja4(read(made([], None)), "t") == f"t12i000000_{NOTHING}_{NOTHING}"
    assert ja4(read(made([0x0A0A], [(0, b""), alpn(b"h2")])), "t") == f"t12d0002h2_{NOTHING}_{NOTHING}"
    without = ja4(read(made(extensions=[(0x17, b"")])), "t")
    assert without.endswith("_" + hashlib.sha256(b"0017").hexdigest()[:12]), "no signature algorithms, no underscore"


def test_counts_have_two_digits() -> None:
    hello = read(made(range(0x2000, 0x2000 + 200), [(0x3000 + each, b"") for each in range(200)]))
    assert ja4(hello, "t").startswith("t12i999900_")


def test_resumption_changes_one_name_and_not_the_other() -> None:
    first = read(made(extensions=[(0, b""), sigalgs(0x0403)]))
    again = read(made(extensions=[(0, b""), sigalgs(0x0403), (0x2A, b""), (0x15, bytes(9)), (0x29, bytes(40))]))
    assert ja4(first, "t") != ja4(again, "t")
    assert ja4_normal(first, "t") == ja4_normal(again, "t") == ja4(first, "t")


def test_ja3() -> None:
    """A string that can be written down by hand."""
    extensions = [(0x0A0A, b""), (0x0A, sized(two([0x1A1A, 29, 23]))), (0x0B, b"\x01\x00"), (0x00, b"")]
    hello = read(made([0x0A0A, 0x1301, 0xC02B], extensions))
    assert ja3(hello) == hashlib.md5(b"771,4865-49195,10-11-0,29-23,0").hexdigest()
    assert ja3(read(made([47], None, version=0x0301))) == hashlib.md5(b"769,47,,,").hexdigest()


# -- frames ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 600), max_size=8), st.binary(max_size=20), st.sampled_from(VECTORS))
def test_records_are_put_together(sizes: list[int], more: bytes, vector: dict[str, str]) -> None:
    message = bytes.fromhex(vector["client_hello"])
    first = records(message, sizes)
    assert from_records(first + more) == message
    assert from_records(first[:-1]) == b"", "not whole yet"


def test_what_is_no_hello() -> None:
    message = made()
    assert from_records(b"") == from_records(b"GET / HTTP/1.1\r\n") == from_records(b"\x16\x03\x01") == b""
    assert from_records(b"\x16\x03\x01\x00\x00" + records(message)) == b"", "an empty record, which no TLS sends"
    assert from_records(b"\x17" + records(message)[1:]) == b"", "not of the handshake"
    assert from_records(records(b"\x02" + message[1:])) == b"", "a server's"
    assert from_records(records(message, [7])[:12] + b"\x17" + records(message)) == b"", "another kind between two parts"
    assert from_records(b"\x16\x03\x01\x40\x01" + bytes(0x4001)) == b"", "a record longer than any"
    long = made(extensions=[(0x15, bytes(MAX_MESSAGE))])
    assert from_records(records(long, [16000])) == b""
    assert read_hello(long) is None
    for wrong in (b"", b"\x01", b"\x02" + message[1:], message + b"\0", message[:-1], made([], None)[:-3]):
        assert read_hello(wrong) is None


def test_every_cut_of_a_message_is_none() -> None:
    message = bytes.fromhex(vector_of("curl")["client_hello"])
    for size in range(len(message)):
        cut = message[:size]
        assert read_hello(cut) is None
        if size >= 4:
            assert read_hello(cut[:1] + (size - 4).to_bytes(3, "big") + cut[4:]) is None or size == cut_before_extensions(message)


def cut_before_extensions(message: bytes) -> int:
    """Where a message may end: one without the field of extensions is whole."""
    at = 38 + 1 + message[38]
    at += 2 + int.from_bytes(message[at : at + 2], "big")
    return at + 1 + message[at]


@pytest.mark.parametrize("kind", [0x0A, 0x0B, 0x0D, 0x10, 0x1B, 0x2B, 0x33])
@given(content=st.binary(max_size=12))
def test_spoiled_extensions_are_empty(kind: int, content: bytes) -> None:
    """A client does not become unknown by one that TLS does not look into."""
    hello = read(made([0x1301], [(kind, content), (0x17, b"")]))
    assert hello.extensions == (kind, 0x17)
    assert ja4(hello, "t").startswith("t")
    assert ja3(hello)


def test_twice_the_same_extension() -> None:
    """The first counts; TLS refuses it, where it knows that one."""
    hello = read(made(extensions=[alpn(b"h2"), alpn(b"http/1.1")]))
    assert hello.alpn == (b"h2",)
    assert hello.extensions == (0x10, 0x10)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    from_records(data)
    from_records(b"\x16\x03\x01" + sized(data))
    for message in (data, b"\x01" + sized(data, 3), b"\x01" + sized(b"\x03\x03" + bytes(32) + data, 3)):
        hello = read_hello(message)
        if hello is not None:
            assert len(ja4(hello, "t")) == len(ja4_normal(hello, "q")) == 36
            assert len(ja3(hello)) == 32


def test_spoiled_hellos() -> None:
    """A part of what `python -m bench.hellos --fuzz 1000000` does."""
    read, changed = hellos.fuzz(5_000, 7)
    assert 2_000 < read < 5_000
    assert changed > 500, "or it spoils nothing that matters"
