from __future__ import annotations

from edgeproxy.observe.quiet import Quiet


def test_the_same_is_told_once_in_a_while() -> None:
    quiet = Quiet(every=60.0)
    assert [quiet.again("a", now) for now in (0.0, 1.0, 59.9, 60.0, 61.0, 130.0)] == [1, 0, 0, 3, 0, 2]
    assert quiet.again("b", 1.0) == 1


def test_what_is_remembered_is_bounded() -> None:
    quiet = Quiet(every=60.0, most=10)
    for number in range(100):
        assert quiet.again(number, 0.0) == 1
    assert len(quiet._known) == 10
