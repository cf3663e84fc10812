# Previews of one worker together: who gives way when they hold too much.
from __future__ import annotations

from pathlib import Path

from unit.test_rewriting import BODY, post, stand


def test_the_largest_preview_gives_way_to_smaller_ones(tmp_path: Path) -> None:
    made = stand(tmp_path, BODY)
    greedy, small = made.h1().feed(post(b"/b", b"x" * 50_000)[:-1]), made.h1().feed(post(b"/b", b"x" * 100)[:-1])
    assert made.gateway.held == 50_098 and len(made.gateway.previews) == 2
    made.gateway.held += made.snapshot.client.previews - 50_098
    newest = made.h1().feed(post(b"/b", b"12345")[:-1])
    assert b"HTTP/1.1 503 " in greedy.link.written and b"retry-after" in greedy.link.written
    assert not small.link.written and not newest.link.written
    made.gateway.held += 49_999 - 4  # as if others held the rest
    made.h1().feed(post(b"/b", b"x" * 200)[:-1])
    assert len(made.gateway.previews) == 2, "nobody holds more than the newest: it is refused"
    made.gateway.held = sum(each.size for each in made.gateway.previews)
    for driver in (small, newest):
        assert b"HTTP/1.1 200 " in driver.feed(b"!").link.written, "the others go on"
    assert made.gateway.held == 0 and not made.gateway.previews and not made.deadlines.members
