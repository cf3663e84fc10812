# What a ClientHello says, and the names that its shape has: JA4, its normalised form, JA3. No socket, no state, never raises.
"""`read_hello` reads one ClientHello message (RFC 8446 §4.1.2), `from_records` finds it in the first bytes of a TCP connection.

JA4 is that of TLS clients, as FoxIO describes it (BSD-3); JA4H, JA4T, JA4L and JA4X are others, under patents, and not here.
A message whose frame is broken is no hello: TLS refuses such, too. What is broken inside one extension is an empty list: TLS may
not look into that one, and a client must not become unknown by spoiling it.
"""

from __future__ import annotations

import struct
from hashlib import md5, sha256
from typing import Final, Literal, NamedTuple

Kind = Literal["t", "q"]
"""What carried the hello: TCP or QUIC."""

MAX_MESSAGE: Final = (
    16 * 1024
)  # bytes of a message that is read; those with post-quantum shares and ECH have two to three thousand
GREASE: Final = frozenset(0x1010 * high + 0x0A0A for high in range(16))  # RFC 8701
NOTHING: Final = "000000000000"  # JA4's name of an empty list

SERVER_NAME, GROUPS, FORMATS, SIGNATURES, ALPN, PADDING = 0x00, 0x0A, 0x0B, 0x0D, 0x10, 0x15
COMPRESSION, PRE_SHARED_KEY, EARLY_DATA, VERSIONS, KEY_SHARE, TRANSPORT = 0x1B, 0x29, 0x2A, 0x2B, 0x33, 0x39
_UNSTABLE: Final = frozenset({PADDING, PRE_SHARED_KEY, EARLY_DATA})  # one client sends them at times: resumption, sizes
_UNHASHED: Final = frozenset({SERVER_NAME, ALPN})
_VERSIONS: Final = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}
_CLIENT_HELLO: Final = 1
_HANDSHAKE: Final = 22
_RECORD: Final = 5  # bytes before a record's content
_LONGEST_RECORD: Final = 1 << 14  # RFC 8446 §5.1
_HEAD: Final = 4 + 2 + 32  # type and length, version, random
_PAIR: Final = struct.Struct(">HH")


class Hello(NamedTuple):
    """A ClientHello, all lists in the order in which they were sent and with GREASE.

    Attributes:
        version: `legacy_version`, 0x0303 of all that is in use.
        versions: of `supported_versions`; empty without.
        session: bytes of the session id; 0 in QUIC.
        ciphers: cipher suites.
        methods: compression methods of the message, `b"\\0"` of all that is in use.
        extensions: their types.
        sni: a server name was sent.
        alpn: names of protocols.
        groups: of `supported_groups`; shares: those of them that a key was sent for.
        formats: of `ec_point_formats`.
        sigalgs: of `signature_algorithms`.
        compressions: of `compress_certificate` (RFC 8879).
        parameters: content of `quic_transport_parameters` (RFC 9001 §8.2); b"" without.
    """

    version: int
    versions: tuple[int, ...]
    session: int
    ciphers: tuple[int, ...]
    methods: bytes
    extensions: tuple[int, ...]
    sni: bool
    alpn: tuple[bytes, ...]
    groups: tuple[int, ...]
    shares: tuple[int, ...]
    formats: tuple[int, ...]
    sigalgs: tuple[int, ...]
    compressions: tuple[int, ...]
    parameters: bytes


def from_records(first: bytes) -> bytes:
    """The ClientHello message among the first bytes of a TCP connection; b"" where it is not there, or not whole."""
    at, end = 0, len(first)
    message = b""
    while at + _RECORD <= end and first[at] == _HANDSHAKE:
        size = first[at + 3] << 8 | first[at + 4]
        at += _RECORD
        if not 0 < size <= _LONGEST_RECORD or at + size > end:
            return b""
        message = message + first[at : at + size] if message else first[at : at + size]
        at += size
        if len(message) >= 4:
            whole = 4 + int.from_bytes(message[1:4], "big")
            if message[0] != _CLIENT_HELLO or whole > MAX_MESSAGE:
                return b""
            if len(message) >= whole:
                return message[:whole]
    return b""


def read_hello(message: bytes) -> Hello | None:
    """One ClientHello message with its header of four bytes; None when it is not one, or too long. Never raises."""
    if len(message) > MAX_MESSAGE:
        return None
    try:
        return _read(message)
    except (IndexError, struct.error):
        return None


def _read(message: bytes) -> Hello | None:
    """Raises: IndexError or struct.error for a message that ends too early."""
    end = 4 + int.from_bytes(message[1:4], "big")
    if message[0] != _CLIENT_HELLO or end != len(message):
        return None
    session = message[_HEAD]
    at = _HEAD + 1 + session
    size = message[at] << 8 | message[at + 1]
    ciphers = _numbers(message[at + 2 : at + 2 + size], size)
    at += 2 + size
    size = message[at]
    methods = message[at + 1 : at + 1 + size]
    at += 1 + size
    if ciphers is None or at > end:
        return None
    contents: dict[int, bytes] = {}
    types: list[int] = []
    if at < end:  # RFC 5246 §7.4.1.2: there may be none
        if at + 2 + (message[at] << 8 | message[at + 1]) != end:
            return None
        at += 2
        unpack = _PAIR.unpack_from
        while at < end:
            kind, size = unpack(message, at)
            at += 4 + size
            types.append(kind)
            contents.setdefault(kind, message[at - size : at])
        if at != end:
            return None
    get = contents.get
    return Hello(
        version=message[4] << 8 | message[5],
        versions=_pairs(get(VERSIONS), 1),
        session=session,
        ciphers=ciphers,
        methods=methods,
        extensions=tuple(types),
        sni=SERVER_NAME in contents,
        alpn=_names(get(ALPN)),
        groups=_pairs(get(GROUPS), 2),
        shares=_shares(get(KEY_SHARE)),
        formats=_bytes(get(FORMATS)),
        sigalgs=_pairs(get(SIGNATURES), 2),
        compressions=_pairs(get(COMPRESSION), 1),
        parameters=get(TRANSPORT, b""),
    )


def _numbers(content: bytes, size: int) -> tuple[int, ...] | None:
    """Numbers of two bytes each; None when `content` is not `size` bytes of them."""
    if size & 1 or len(content) != size:
        return None
    return struct.unpack(f">{size >> 1}H", content)


def _pairs(content: bytes | None, width: int) -> tuple[int, ...]:
    """A vector of such numbers behind a length of `width` bytes."""
    if content is None or len(content) < width:
        return ()
    size = int.from_bytes(content[:width], "big")
    return _numbers(content[width:], size) or ()


def _bytes(content: bytes | None) -> tuple[int, ...]:
    return tuple(content[1:]) if content and content[0] == len(content) - 1 else ()


def _names(content: bytes | None) -> tuple[bytes, ...]:
    """RFC 7301 §3.1."""
    if content is None or len(content) < 2 or int.from_bytes(content[:2], "big") != len(content) - 2:
        return ()
    found = []
    at, end = 2, len(content)
    while at < end:
        size = content[at]
        at += 1 + size
        if not size or at > end:
            return ()
        found.append(content[at - size : at])
    return tuple(found)


def _shares(content: bytes | None) -> tuple[int, ...]:
    """RFC 8446 §4.2.8."""
    if content is None or len(content) < 2 or int.from_bytes(content[:2], "big") != len(content) - 2:
        return ()
    found = []
    at, end = 2, len(content)
    while at + 4 <= end:
        group, size = _PAIR.unpack_from(content, at)
        at += 4 + size
        found.append(group)
    return tuple(found) if at == end else ()


# -- names -----------------------------------------------------------------------------------------------------------


def ja4(hello: Hello, kind: Kind) -> str:
    """JA4 of a TLS client: `t13d1516h2_8daaf6152771_d8a2da3f94cd`."""
    return _ja4(hello, kind, [each for each in hello.extensions if each not in GREASE])


def ja4_normal(hello: Hello, kind: Kind) -> str:
    """The same as if padding, a pre-shared key and early data had not been sent: resumption changes nothing of it."""
    return _ja4(hello, kind, [each for each in hello.extensions if each not in GREASE and each not in _UNSTABLE])


def _ja4(hello: Hello, kind: Kind, extensions: list[int]) -> str:
    ciphers = [each for each in hello.ciphers if each not in GREASE]
    version = max([each for each in hello.versions if each not in GREASE], default=hello.version)
    head = (
        f"{kind}{_VERSIONS.get(version, '00')}{'d' if hello.sni else 'i'}"
        f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}{_ends(hello.alpn)}"
    )
    ciphers.sort()
    text = _hex(sorted([each for each in extensions if each not in _UNHASHED]))
    algorithms = [each for each in hello.sigalgs if each not in GREASE]
    if algorithms:
        text += "_" + _hex(algorithms)
    return f"{head}_{_short(_hex(ciphers))}_{_short(text)}"


def _hex(numbers: list[int]) -> str:
    """`1301,1302`."""
    return struct.pack(f">{len(numbers)}H", *numbers).hex(",", 2)


def _short(text: str) -> str:
    return sha256(text.encode("ascii"), usedforsecurity=False).hexdigest()[:12] if text else NOTHING


def _ends(alpn: tuple[bytes, ...]) -> str:
    """First and last character of the first name; of its hex digits where one of them is no letter or digit, as the
    description of JA4 has it (FoxIO's own programs say `99`)."""
    if not alpn:
        return "00"
    first = alpn[0]
    ends = first[:1] + first[-1:]
    if ends.isalnum():  # of bytes: ASCII
        return ends.decode("ascii")
    digits = first.hex()
    return digits[0] + digits[-1]


def ja3(hello: Hello) -> str:
    """JA3, 32 hex digits. Chromium permutes its extensions: nearly every connection of one has another."""
    lists = (hello.ciphers, hello.extensions, hello.groups)
    parts = ["-".join([str(each) for each in numbers if each not in GREASE]) for numbers in lists]
    text = f"{hello.version},{','.join(parts)},{'-'.join(map(str, hello.formats))}"
    return md5(text.encode("ascii"), usedforsecurity=False).hexdigest()
