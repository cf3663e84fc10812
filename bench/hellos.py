# ClientHellos of real clients: what reading and naming one costs, and what a million spoiled ones do (nothing).
"""`python -m bench.hellos [--fuzz N] [--seed S]`: CPU µs per new connection, the best of many rounds; or N mutated hellos.

A fuzzed hello is one of tests/data with some bytes changed, cut out, doubled or taken from another one, anywhere or only
inside its extensions, so that what is inside is reached. It must not raise, and a name must have the shape of a name.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

from edgeproxy.listen.first import h2_print, h3_print, transport_parameters
from edgeproxy.listen.hello import Kind, from_records, ja3, ja4, ja4_normal, read_hello
from edgeproxy.prints import Prints
from edgeproxy.quic.hello import extensions

VECTORS = json.loads((Path(__file__).parents[1] / "tests" / "data" / "client_hellos.json").read_text())
MESSAGES = [bytes.fromhex(each["client_hello"]) for each in VECTORS]
SECTION = ((b":method", b"GET"), (b":authority", b"localhost"), (b":scheme", b"https"), (b":path", b"/"))
FIRST = bytes.fromhex(
    "505249202a20485454502f322e300d0a0d0a534d0d0a0d0a"  # preface
    "000018040000000000" "000100010000" "000200000000" "000400600000" "000600040000"
    "000004080000000000" "00ef0001"
    "000019012500000001" "80000000ff"
) + bytes(20)  # fmt: skip
SETTINGS = [(1, 65536), (6, 262144), (7, 100), (51, 1), (0x21 + 0x1F * 9, 4)]
NAME = re.compile(r"[tq](?:1[0-3]|s[23]|00)[di][0-9]{4}[0-9a-zA-Z]{2}_[0-9a-f]{12}_[0-9a-f]{12}")


def framed(message: bytes, size: int = 1 << 14) -> bytes:
    """In TLS records of at most `size` bytes."""
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)


# -- fuzz ------------------------------------------------------------------------------------------------------------


def spoiled(dice: random.Random) -> bytes:
    """A ClientHello with something wrong: anywhere, or only inside its extensions."""
    message = dice.choice(MESSAGES)
    if dice.random() < 0.5:
        return _inside(message, dice)
    data = bytearray(message)
    _cut(data, dice)
    if len(data) > 4 and dice.random() < 0.5:
        data[0] = 1
        data[1:4] = (len(data) - 4).to_bytes(3, "big")
        _fit(data)
    return bytes(data)


def _inside(message: bytes, dice: random.Random) -> bytes:
    """The frame stays whole: types and contents of extensions do not."""
    found = list(extensions(message))
    dice.shuffle(found)
    made = b""
    for kind, content in found[: dice.randrange(len(found) + 1)]:
        spoil = bytearray(content)
        if dice.random() < 0.4:
            _cut(spoil, dice)
        name = dice.choice((kind, kind, kind, dice.randrange(0x10000)))
        made += name.to_bytes(2, "big") + len(spoil).to_bytes(2, "big") + spoil
    end = len(message) - sum(4 + len(content) for _, content in found) - 2
    body = message[4:end] + len(made).to_bytes(2, "big") + made
    return b"\x01" + len(body).to_bytes(3, "big") + body


def _cut(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        at = dice.randrange(len(data) + 1)
        size = dice.choice((1, 1, 2, 4, 30, 300))
        kind = dice.randrange(6)
        if kind == 0 and at < len(data):
            data[at] = dice.choice((0, 1, 0x0A, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        elif kind == 1:
            del data[at : at + size]
        elif kind == 2:
            data[at:at] = dice.randbytes(size)
        elif kind == 3:
            data[at:at] = data[at : at + size] * dice.choice((1, 2, 8))
        elif kind == 4:
            other = dice.choice(MESSAGES)
            data[at : at + size] = other[at : at + size]
        else:
            del data[at:]


def _fit(data: bytearray) -> None:
    """Makes the extensions as long as what is left, where that is reached."""
    try:
        at = 38 + 1 + data[38]
        at += 2 + int.from_bytes(data[at : at + 2], "big")
        at += 1 + data[at]
        if at + 2 <= len(data):
            data[at : at + 2] = (len(data) - at - 2).to_bytes(2, "big")
    except (IndexError, OverflowError):
        pass


def fuzz(count: int, seed: int) -> tuple[int, int]:
    """Reads that many spoiled hellos; how many could be read, and how many had another name than what they were made of.

    Raises: whatever must not be raised; AssertionError for a name that is none.
    """
    dice = random.Random(seed)
    read = changed = 0
    known = {each[name] for each in VECTORS for name in ("ja4", "ja4n")}
    for _ in range(count):
        message = spoiled(dice)
        hello = read_hello(message)
        found = from_records(framed(message, dice.choice((1 << 14, 200)))[: dice.choice((1 << 20, 900))])
        assert not found or message.startswith(found)
        h2_print(message, SECTION)
        transport_parameters(message[dice.randrange(100) :])
        if hello is None:
            continue
        read += 1
        for name in (ja4(hello, "t"), ja4_normal(hello, "q")):
            assert NAME.fullmatch(name), (name, message.hex())
            changed += name not in known
        assert len(ja3(hello)) == 32
        h3_print(Prints(message, "q"), SETTINGS, SECTION)
    return read, changed


# -- time ------------------------------------------------------------------------------------------------------------


def cost(step: Callable[[], object], rounds: int = 15, count: int = 400) -> float:
    """CPU µs, the best round."""
    best = float("inf")
    for _ in range(rounds):
        begun = time.process_time_ns()
        for _ in range(count):
            step()
        best = min(best, (time.process_time_ns() - begun) / count / 1000)
    return best


def measure() -> None:
    """A line for each client."""
    print(f"{'':32}{'bytes':>6}{'parse':>8}{'ja4':>8}{'ja4n':>8}{'ja3':>8}{'h2/h3':>8}{'all':>8}  µs")
    for vector, message in zip(VECTORS, MESSAGES, strict=True):
        figures = "".join(f"{each:8.1f}" for each in costs(message, "q" if vector["transport"] == "quic" else "t"))
        print(f"{vector['client']:32}{len(message):6}{figures}")


def costs(message: bytes, kind: Kind) -> list[float]:
    """Of each column."""
    first = message if kind == "q" else framed(message)
    hello = read_hello(message)
    assert hello is not None
    kept = Prints(first, kind)

    def frames(prints: Prints) -> object:
        return h3_print(prints, SETTINGS, SECTION) if kind == "q" else h2_print(FIRST, SECTION)

    def everything() -> object:
        prints = Prints(first, kind)
        return prints.ja4, prints.ja4n, prints.ja3, frames(prints)

    steps: tuple[Callable[[], object], ...] = (
        lambda: Prints(first, kind).hello, lambda: ja4(hello, kind), lambda: ja4_normal(hello, kind), lambda: ja3(hello),
        lambda: frames(kept), everything,
    )  # fmt: skip
    return [cost(step) for step in steps]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.hellos", description=__doc__.partition("\n")[0])
    parser.add_argument("--fuzz", type=int, metavar="N", help="read N spoiled hellos instead of measuring")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.fuzz is None:
        measure()
        return
    begun = time.monotonic()
    read, changed = fuzz(options.fuzz, options.seed)
    took = time.monotonic() - begun
    said = f"none raised, {read} were read, {changed} new names"
    print(f"{options.fuzz} spoiled hellos (seed {options.seed}) in {took:.0f} s: {said}")


if __name__ == "__main__":
    main()
