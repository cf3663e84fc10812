# What is blocked: how it is read, and that a look-up finds it as long as it holds, and nothing else.
from __future__ import annotations

import ipaddress
import json
import random
from typing import Any

import pytest

from edgeproxy.policy.blocks import MAX_SECONDS, Block, Blocks, Kind, Refused, normal, understand

NOW = 1000.0


def block(kind: Kind, value: str, until: float = NOW + 60) -> Block:
    return Block(kind, value, until, 0.0, "")


def asked(**content: Any) -> Block:
    return understand(json.dumps(content).encode(), NOW, 5.0)


def test_what_is_asked_for_has_one_form() -> None:
    assert asked(ip="192.0.2.1", seconds=60, reason="r") == Block("ip", "192.0.2.1", NOW + 60, 5.0, "r")
    assert asked(ip="2001:DB8:0::1", seconds=1).value == "2001:db8::1"
    assert asked(ip="::ffff:192.0.2.1", seconds=1).value == "192.0.2.1"
    assert asked(network="192.0.2.7/32", seconds=1).name == ("ip", "192.0.2.7")
    assert asked(network="10.0.0.0/8", seconds=1).name == ("network", "10.0.0.0/8")
    assert asked(key="ep-Ab3dEf9h", seconds=1).name == asked(key="Ab3dEf9h", seconds=0).name == ("key", "Ab3dEf9h")
    assert asked(ja4="t13d1516h2_8daaf6152771", seconds=1).name == ("ja4", "t13d1516h2_8daaf6152771")
    assert asked(ip="192.0.2.1", seconds=0).until == NOW


@pytest.mark.parametrize("content", [
    {"seconds": 1}, {"ip": "192.0.2.1"}, {"ip": "192.0.2.1", "key": "Ab3dEf9h", "seconds": 1}, {"ip": "192.0.2.1", "seconds": -1},
    {"ip": "192.0.2.1", "seconds": MAX_SECONDS + 1}, {"ip": "192.0.2.1", "seconds": 1.5}, {"ip": "192.0.2.0/24", "seconds": 1},
    {"ip": "x", "seconds": 1}, {"network": "10.1.0.0/8", "seconds": 1}, {"network": "10.0.0.1..10.0.0.9", "seconds": 1},
    {"ja4": "t13", "seconds": 1}, {"ip": "192.0.2.1", "seconds": 1, "more": 1}, [],
    {"ip": "192.0.2.1", "seconds": 1, "reason": "\x1b"}, {"ip": "192.0.2.1", "seconds": 1, "reason": "x" * 201},
])  # fmt: skip
def test_what_is_not_understood(content: Any) -> None:
    with pytest.raises(Refused):
        understand(json.dumps(content).encode(), NOW, 5.0)


def test_a_whole_key_is_refused_and_not_repeated() -> None:
    secret = "ep-Ab3dEf9h-" + "x" * 46
    with pytest.raises(Refused) as refused:
        normal("key", secret)
    assert "xxx" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000])
def test_what_is_no_json(content: bytes) -> None:
    with pytest.raises(Refused):
        understand(content, NOW, 5.0)


def test_addresses_and_networks() -> None:
    outer, inner, one = block("network", "10.0.0.0/8", NOW + 5), block("network", "10.1.0.0/16"), block("ip", "2001:db8::1")
    blocks = Blocks([inner, one, outer])
    assert blocks.client("10.9.9.9", NOW) is outer and blocks.client("10.1.2.3", NOW) is inner
    assert blocks.client("::ffff:10.1.2.3", NOW) is inner
    assert blocks.client("2001:db8::1", NOW) is one
    for free in ("9.255.255.255", "11.0.0.0", "2001:db8::2", "0.0.0.0", "ffff::", "", "x"):
        assert blocks.client(free, NOW) is None
    assert blocks.client("10.9.9.9", NOW + 5) is None and blocks.client("10.1.2.3", NOW + 5) is inner
    assert blocks.client("10.1.2.3", NOW + 60) is None


def test_the_block_that_lasts_longest_holds() -> None:
    outer, inner = block("network", "10.0.0.0/8", NOW + 60), block("network", "10.1.0.0/16", NOW + 5)
    blocks = Blocks([inner, outer])
    assert blocks.client("10.1.2.3", NOW + 6) is outer
    short = block("ip", "10.1.2.3", NOW + 1)
    assert Blocks([short, outer]).client("10.1.2.3", NOW + 2) is outer


def test_networks_as_the_standard_library_sees_them() -> None:
    rand = random.Random(7)
    for _ in range(200):
        found = []
        for _ in range(rand.randrange(1, 12)):
            bits = rand.randrange(24, 33)
            number = int(ipaddress.ip_address("192.0.2.0")) + rand.randrange(256)
            network = ipaddress.ip_network((number >> (32 - bits) << (32 - bits), bits))
            kind, value = normal("network", str(network))
            found.append(block(kind, value, NOW + rand.randrange(1, 100)))
        blocks = Blocks(found)
        for last in range(256):
            for now in (NOW, NOW + 50):
                address = ipaddress.ip_address(f"192.0.2.{last}")
                held = [each for each in found if address in ipaddress.ip_network(each.value) and each.until > now]
                seen = blocks.client(str(address), now)
                assert (seen is None) == (not held)
                assert seen is None or seen in held


def test_fingerprints_and_keys() -> None:
    family, whole = block("ja4", "t13d1516h2"), block("ja4", "q13d0312h3_55b375c5d22e_06cda9e17597")
    key = block("key", "Ab3dEf9h")
    blocks = Blocks([family, whole, key])
    assert blocks.fingerprints and not Blocks([key]).fingerprints
    assert blocks.fingerprint("t13d1516h2_8daaf6152771_02713d6af862", NOW) is family
    assert blocks.fingerprint("q13d0312h3_55b375c5d22e_06cda9e17597", NOW) is whole
    for other in ("", "t13d1517h2_8daaf6152771_02713d6af862", "q13d0312h3_55b375c5d22e_000000000000"):
        assert blocks.fingerprint(other, NOW) is None
    assert blocks.fingerprint("t13d1516h2_8daaf6152771_02713d6af862", NOW + 60) is None
    assert blocks.key("Ab3dEf9h", NOW) is key and blocks.key("other", NOW) is None and blocks.key("Ab3dEf9h", NOW + 60) is None
