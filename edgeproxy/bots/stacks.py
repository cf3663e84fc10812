# How the TLS and HTTP/2 of browsers are built, as measured on real ones (docs/bot-model.md). Tables and counting; nothing is
# decided.
"""`tls_strange`, `h2_strange`: in how many places a connection differs from every version of the family it is built like.

A new version of a browser may differ in one: that is why it is a number for a model and not a verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from edgeproxy.bots.agents import CHROMIUM, FIREFOX, SAFARI
from edgeproxy.listen.hello import GREASE

if TYPE_CHECKING:
    from edgeproxy.listen.hello import Hello
    from edgeproxy.prints import H2Print

_QUIC: Final = 0x39
_UNSTABLE: Final = frozenset({0x15, 0x29, 0x2A})  # padding, resumption, early data: one client sends them at times


class Stack(NamedTuple):
    """What versions of a family have in common over one transport; GREASE left out."""

    always: frozenset[int]  # extensions
    at_times: frozenset[int]
    ciphers: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...]
    sigalgs: tuple[tuple[int, ...], ...]
    versions: tuple[int, ...]
    compressions: tuple[tuple[int, ...], ...]
    greases: bool


_HYBRIDS: Final = (0x11EC, 0x6399)  # ML-KEM, and Kyber of 2024
_CHROMIUM_SIGALGS: Final = (0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601)
_CHROMIUM_GROUPS: Final = ((29, 23, 24), *((hybrid, 29, 23, 24) for hybrid in _HYBRIDS))
_FIREFOX_SIGALGS: Final = (0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0203, 0x0201)
_FIREFOX_CIPHERS: Final = (
    4865,
    4867,
    4866,
    49195,
    49199,
    52393,
    52392,
    49196,
    49200,
    49162,
    49161,
    49171,
    49172,
    156,
    157,
    47,
    53,
)
_STACKS: Final = {
    (CHROMIUM, False): Stack(
        frozenset({0, 5, 10, 11, 13, 16, 18, 23, 27, 35, 43, 45, 51, 0xFF01}),
        frozenset({0x4469, 0x44CD, 0xCA34, 0xFE0D}),
        ((4865, 4866, 4867, 49195, 49199, 49196, 49200, 52393, 52392, 49171, 49172, 156, 157, 47, 53),),
        _CHROMIUM_GROUPS,
        (_CHROMIUM_SIGALGS, (0x0904, 0x0905, 0x0906, *_CHROMIUM_SIGALGS)),  # ML-DSA
        (0x0304, 0x0303),
        ((2,),),
        True,
    ),
    (CHROMIUM, True): Stack(
        frozenset({0, 10, 13, 16, 27, 43, 45, 51, _QUIC}),
        frozenset({0x4469, 0x44CD, 0xCA34, 0xFE0D}),
        ((4865, 4866, 4867),),
        _CHROMIUM_GROUPS,
        ((*_CHROMIUM_SIGALGS, 0x0201), (0x0904, 0x0905, 0x0906, *_CHROMIUM_SIGALGS, 0x0201)),
        (0x0304,),
        ((2,),),
        False,
    ),
    (FIREFOX, False): Stack(
        frozenset({0, 5, 10, 11, 13, 16, 23, 28, 34, 43, 45, 51, 0xFF01}),
        frozenset({18, 27, 35, 0xFE0D}),
        (_FIREFOX_CIPHERS, tuple(each for each in _FIREFOX_CIPHERS if each != 49161)),
        ((29, 23, 24, 25, 256, 257), (0x11EC, 29, 23, 24, 25, 256, 257)),
        (_FIREFOX_SIGALGS, (*_FIREFOX_SIGALGS[:9], 0x0201, 0x0203), (*_FIREFOX_SIGALGS[:3], *_FIREFOX_SIGALGS[3:9], 0x0203,
        0x0201)),
        (0x0304, 0x0303),
        ((1, 2, 3), ()),
        False,
    ),
    (FIREFOX, True): Stack(
        frozenset({0, 5, 10, 13, 16, 23, 28, 34, 43, 45, 51, _QUIC, 0xFF01}),
        frozenset({18, 27, 35, 0xFE0D}),
        ((4865, 4867, 4866),),
        ((29, 23, 24, 25), (0x11EC, 29, 23, 24, 25)),
        ((0x0403, 0x0503, 0x0603, 0x0203, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0201),),
        (0x0304,),
        ((1, 3, 2), (1, 2, 3), ()),
        False,
    ),
    (SAFARI, False): Stack(
        frozenset({0, 5, 10, 11, 13, 16, 18, 23, 27, 43, 45, 51, 0xFF01}),
        frozenset(),
        ((4865, 4866, 4867, 49196, 49195, 52393, 49200, 49199, 52392, 49162, 49161, 49172, 49171, 157, 156, 53, 47, 49160,
        49170, 10),),
        ((29, 23, 24, 25), (0x11EC, 29, 23, 24, 25)),
        (
            (0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0805, 0x0501, 0x0806, 0x0601, 0x0201),
            (0x0403, 0x0804, 0x0401, 0x0503, 0x0203, 0x0805, 0x0805, 0x0501, 0x0806, 0x0601, 0x0201),
        ),
        (0x0304, 0x0303, 0x0302, 0x0301),
        ((1,),),
        True,
    ),
}  # fmt: skip
_SETTINGS: Final = {
    CHROMIUM: (
        ((1, 65_536), (2, 0), (4, 6_291_456), (6, 262_144)),
        ((1, 65_536), (2, 0), (3, 1000), (4, 6_291_456), (6, 262_144)),  # until 117
    ),
    FIREFOX: (((1, 65_536), (2, 0), (4, 131_072), (5, 16_384)), ((1, 65_536), (4, 131_072), (5, 16_384))),
    SAFARI: (
        ((2, 0), (3, 100), (4, 2_097_152), (9, 1)),
        ((2, 0), (3, 100), (4, 2_097_152), (8, 1), (9, 1)),
        ((2, 0), (4, 4_194_304), (3, 100)),
        ((2, 0), (4, 2_097_152), (3, 100)),
    ),
}  # fmt: skip


def tls_strange(hello: Hello, family: int) -> int:
    """Differences of a hello from its family; 0 for families without a table."""
    has = {each for each in hello.extensions if each not in GREASE} - _UNSTABLE
    stack = _STACKS.get((family, _QUIC in has))
    if stack is None:
        return 0
    return (
        len(stack.always - has)
        + len(has - stack.always - stack.at_times)
        + (_plain(hello.ciphers) not in stack.ciphers)
        + (_plain(hello.groups) not in stack.groups)
        + (_plain(hello.sigalgs) not in stack.sigalgs)
        + (_plain(hello.versions) != stack.versions)
        + (hello.compressions not in stack.compressions)
        + (stack.greases is (GREASE.isdisjoint(hello.ciphers) or GREASE.isdisjoint(hello.extensions)))
        + (family == CHROMIUM and 0x4469 not in has and 0x44CD not in has)
        + (hello.session != (0 if _QUIC in has else 32))
    )


def _plain(numbers: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([each for each in numbers if each not in GREASE])


def h2_strange(h2: H2Print, family: int) -> int:
    """Differences of the way HTTP/2 begins from its family: settings that no version sends, or a tree of priorities."""
    known = _SETTINGS.get(family)
    if known is None:
        return 0
    settings = tuple([pair for pair in h2.settings if pair[0] not in GREASE and pair[0] < 0x0A0A])
    nearest = min(len(set(settings) ^ set(each)) for each in known)
    return nearest + (nearest == 0 and settings not in known) + bool(h2.priorities) + _weight(h2, family)


def _weight(h2: H2Print, family: int) -> int:
    """Chromium asks with weights that are exclusive, Firefox with others (measured on the versions of docs/bot-model.md)."""
    exclusive = _EXCLUSIVE.get(family)
    return 0 if exclusive is None else int(h2.priority is None or h2.priority[0] != exclusive)


_EXCLUSIVE: Final = {CHROMIUM: 1, FIREFOX: 0}
