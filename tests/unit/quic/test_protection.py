# Packets of ours and of aioquic's open on the other side, for every suite, through key updates and out of order.
"""quic/protection.py."""

from __future__ import annotations

import pytest
from aioquic.quic.crypto import CryptoError, CryptoPair
from aioquic.tls import CipherSuite
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.quic import protection
from edgeproxy.quic.ids import ID_LENGTH
from edgeproxy.quic.protection import SHORTEST, TAG, Keys, Protection, _mask

SUITES = [CipherSuite.AES_128_GCM_SHA256, CipherSuite.AES_256_GCM_SHA384, CipherSuite.CHACHA20_POLY1305_SHA256]
VERSIONS = [1, 0x6B3343CF]
NAME = b"8bytes!!"


def secrets(suite: CipherSuite) -> tuple[bytes, bytes]:
    size = 48 if suite == CipherSuite.AES_256_GCM_SHA384 else 32
    return bytes(range(size)), bytes(range(100, 100 + size))


def pair(suite: CipherSuite, version: int = 1) -> tuple[Protection, CryptoPair]:
    """A server of ours and a client of aioquic's."""
    client, server = secrets(suite)
    ours = Protection(suite, client, server, version)
    theirs = CryptoPair()
    theirs.recv.setup(cipher_suite=suite, secret=server, version=version)
    theirs.send.setup(cipher_suite=suite, secret=client, version=version)
    return ours, theirs


def ends(suite: CipherSuite = SUITES[0]) -> tuple[Protection, Protection]:
    """A server and a client, both ours."""
    client, server = secrets(suite)
    return Protection(suite, client, server, 1), Protection(suite, server, client, 1)


def theirs_seals(theirs: CryptoPair, number: int, payload: bytes, size: int = 2) -> bytes:
    header = bytes((0x40 | theirs.key_phase << 2 | (size - 1),)) + NAME + (number & ((1 << size * 8) - 1)).to_bytes(size, "big")
    return theirs.encrypt_packet(header, payload, number)


def opened(ours: Protection, data: bytes, expected: int) -> tuple[int, bytes]:
    found = ours.open(data, expected)
    assert found is not None
    return found[1], found[2]


def test_rfc_9001_appendix_a_5() -> None:
    """ChaCha20-Poly1305 short header packet; the connection id is empty there, so its parts are looked at."""
    suite = CipherSuite.CHACHA20_POLY1305_SHA256
    secret = bytes.fromhex("9ac312a7f877468ebe69422748ad00a15443f18203a07d6060f688f30f21632b")
    keys = Keys(suite, secret, 1)
    assert keys.iv.to_bytes(12, "big").hex() == "e0459b3474bdd0e44a41c144"
    packet = bytes.fromhex("4cfe4189655e5cd55c41f69080575d7999c25a5bfb")
    mask = _mask(suite, keys.mask_key)(packet[5:21])
    assert mask[:5].hex() == "aefefe7d03"
    assert (packet[0] ^ mask[0] & 0x1F) == 0x42
    assert bytes(a ^ b for a, b in zip(packet[1:4], mask[1:4], strict=True)).hex() == "00bff4"
    nonce = (keys.iv ^ 654360564).to_bytes(12, "big")
    assert nonce.hex() == "e0459b3474bdd0e46d417eb0"
    assert keys.aead.decrypt(nonce, packet[4:], bytes.fromhex("4200bff4")) == b"\x01"
    following = Protection(suite, secret, secret, 1)._following(keys)
    assert following.secret.hex() == "1223504755036d556342ee9361d253421a826c9ecdf3c7148684b36b714881f9"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("suite", SUITES)
def test_both_ways(suite: CipherSuite, version: int) -> None:
    ours, theirs = pair(suite, version)
    for number in (0, 1, 77, 0xFFFF, 0x10000, 0x12345):
        for payload in (b"\x01\0", b"x" * 1200):
            data = ours.seal(NAME, number, payload, 0x20 if number & 1 else 0)
            header, plain, found = theirs.decrypt_packet(data, 1 + ID_LENGTH, number)
            assert (plain, found, header[1:9]) == (payload, number, NAME)
            assert header[0] == 0x41 | (0x20 if number & 1 else 0)
            assert len(data) == 1 + 8 + 2 + len(payload) + TAG
            for size in (1, 2, 3, 4):
                sealed = theirs_seals(theirs, number, payload + b"\0\0\0", size)
                if len(sealed) >= SHORTEST:
                    assert opened(ours, sealed, number) == (number, payload + b"\0\0\0")
    assert ours.forged == 0


@given(st.integers(0, (1 << 62) - 1), st.integers(1, 4), st.data())
@settings(max_examples=150, deadline=None)
def test_packet_numbers_are_found(expected: int, size: int, data: st.DataObject) -> None:
    """RFC 9000 appendix A.3: whatever is within half of the window is found."""
    half = 1 << size * 8 - 1
    number = data.draw(st.integers(max(0, expected - half + 1), min(expected + half, (1 << 62) - 1)))
    ours, theirs = pair(SUITES[0])
    sealed = theirs_seals(theirs, number, bytes(8), size)
    assert opened(ours, sealed, expected)[0] == number


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_edges_of_the_window(size: int) -> None:
    ours, theirs = pair(SUITES[0])
    half = 1 << size * 8 - 1
    for expected in (half, 2 * half, 5 * half + 3):
        for number in (expected - half + 1, expected, expected + half):
            assert opened(ours, theirs_seals(theirs, number, bytes(8), size), expected)[0] == number


@pytest.mark.parametrize("suite", SUITES)
def test_the_peer_updates_its_keys(suite: CipherSuite) -> None:
    ours, theirs = pair(suite)
    late = theirs_seals(theirs, 1, b"late")
    assert opened(ours, theirs_seals(theirs, 0, b"first"), 0) == (0, b"first")
    for turn in range(1, 4):
        theirs.update_key()
        number = turn * 10
        following = theirs_seals(theirs, number + 1, b"overtaken")
        reordered = theirs_seals(theirs, number, b"new keys")
        assert opened(ours, following, number)[1] == b"overtaken"
        assert ours.phase == turn & 1
        assert opened(ours, reordered, number + 2) == (number, b"new keys")
        if turn == 1:
            assert opened(ours, late, number + 2) == (1, b"late"), "with the keys of before"
        data = ours.seal(NAME, turn, b"answer", 0)
        assert theirs.decrypt_packet(data, 9, turn)[1] == b"answer", "RFC 9001 §6.2: the answer has the new keys, too"
    assert ours.updates == 3
    assert ours.forged == 0


def test_we_update_our_keys() -> None:
    ours, theirs = pair(SUITES[0])
    before = theirs_seals(theirs, 5, b"before")
    ours.update()
    assert opened(ours, before, 5) == (5, b"before"), "the peer has not seen the update yet"
    data = ours.seal(NAME, 9, b"update", 0)
    assert theirs.decrypt_packet(data, 9, 9)[1] == b"update"
    assert opened(ours, theirs_seals(theirs, 6, b"after"), 6) == (6, b"after")
    theirs.update_key()
    assert opened(ours, theirs_seals(theirs, 7, b"theirs"), 7) == (7, b"theirs"), "and then it is the peer's turn"
    assert ours.updates == 2
    assert theirs.decrypt_packet(ours.seal(NAME, 10, b"ok", 0), 9, 10)[1] == b"ok"


def test_both_update_at_once() -> None:
    one, other = ends()
    one.update()
    other.update()
    assert opened(other, one.seal(NAME, 3, b"one", 0), 3) == (3, b"one")
    assert opened(one, other.seal(NAME, 4, b"other", 0), 4) == (4, b"other")
    assert (one.updates, other.updates) == (1, 1)


def test_a_worn_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "UPDATE_AFTER", 3)
    ours, _ = ends()
    for number in range(3):
        assert not ours.is_worn
        ours.seal(NAME, number, b"xx", 0)
    assert ours.is_worn
    ours.update()
    assert not ours.is_worn


@given(st.integers(0, 60), st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_one_bit_is_enough(position: int, bit: int) -> None:
    ours, theirs = pair(SUITES[0])
    data = bytearray(theirs_seals(theirs, 3, b"x" * 40))
    position = min(position, len(data) - 1)
    if position == 0 and bit == 7:
        return  # the form of a long header: not asked for
    data[position] ^= 1 << bit
    assert ours.open(bytes(data), 3) is None
    assert ours.forged == 1
    assert ours.updates == 0, "a forged phase bit updates nothing"
    assert opened(ours, theirs_seals(theirs, 4, b"fine"), 3) == (4, b"fine")


@given(st.binary(min_size=SHORTEST, max_size=80))
@settings(max_examples=200, deadline=None)
def test_garbage(data: bytes) -> None:
    ours, _ = ends()
    assert ours.open(data, 1000) is None
    assert ours.forged == 1


def test_the_keys_of_the_next_phase_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    following = Protection._following

    def counting(self: Protection, keys: Keys) -> Keys:
        made.append(keys)
        return following(self, keys)

    monkeypatch.setattr(Protection, "_following", counting)
    ours, _ = ends()
    _, client = ends()
    client.update()
    forged = [client.seal(NAME, number, b"xxxx", 0)[:-1] + b"!" for number in range(20)]
    for data in forged:
        assert ours.open(data, 0) is None
    assert len(made) <= 1 + 2  # two of them are the client's own


def test_theirs_refuses_what_is_not_ours() -> None:
    ours, theirs = pair(SUITES[0])
    data = ours.seal(NAME, 1, b"hello", 0)
    with pytest.raises(CryptoError):
        theirs.decrypt_packet(data[:-1] + bytes((data[-1] ^ 1,)), 9, 1)
