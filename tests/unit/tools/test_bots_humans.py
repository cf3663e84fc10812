# Synthesised humans: hellos of real browsers' signatures come out with their JA4; languages are written as families write them.
from __future__ import annotations

import random

import pytest

from edgeproxy.bots.agents import CHROMIUM, FIREFOX, SAFARI
from edgeproxy.bots.stacks import h2_strange, tls_strange
from edgeproxy.bots.wire import h2_family, tls_family
from edgeproxy.listen.hello import ja4_normal
from tools.bots.humans import SIGNATURES, hello_of, language, nearest, signatures

needs_signatures = pytest.mark.skipif(not SIGNATURES.is_dir(), reason="../shared/data/browser-signatures is not here")


@needs_signatures
def test_hellos_have_the_ja4_of_their_browsers() -> None:
    known = {"chrome_136": "t13d1516h2_8daaf6152771_d8a2da3f94cd", "chrome_131": "t13d1516h2_8daaf6152771_02713d6af862"}
    found = signatures()
    for prefix, ja4 in known.items():
        one = next(s for s in found if s.name.startswith(prefix))
        hellos = [hello_of(one.hello, random.Random(seed)) for seed in range(5)]
        assert {ja4_normal(hello, "t") for hello in hellos} == {ja4}
        assert len({hello.extensions for hello in hellos}) == 5  # permuted anew each time


@needs_signatures
def test_every_signature_is_of_its_family_and_not_strange() -> None:
    for one in signatures():
        for mlkem in (False, True) if one.family == SAFARI else (False,):
            hello = hello_of(one.hello, random.Random(1), mlkem)
            assert tls_family(hello) == one.family, one.name
            assert tls_strange(hello, one.family) == 0, one.name
        assert h2_family(one.h2) == one.family, one.name
        weights = {CHROMIUM: (1, 0, 256), FIREFOX: (0, 0, 42), SAFARI: None}
        assert h2_strange(one.h2._replace(priority=weights[one.family]), one.family) == 0, one.name


@needs_signatures
def test_a_version_without_a_signature_gets_the_one_before() -> None:
    found = signatures()
    chosen = nearest(found, CHROMIUM, 134, False, random.Random(1))
    assert chosen is not None
    assert chosen.major == 133
    oldest = nearest(found, CHROMIUM, 101, False, random.Random(1))
    assert oldest is not None
    assert oldest.major == min(s.major for s in found if s.family == CHROMIUM)


def test_languages() -> None:
    for family in (CHROMIUM, FIREFOX, SAFARI):
        for seed in range(200):
            text = language(family, 150, random.Random(seed))
            assert b" " not in text
            assert b";q=" not in text.split(b",")[0]
