# A Body loses nothing, grants what was taken and stops where it must, whatever the order of events.
"""message.py and faults.py."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.faults import Source, client_fault, edge_fault, upstream_fault
from edgeproxy.message import Body, Peer, Request


class Recorder:
    """Both ends of a body; pauses it when told to."""

    def __init__(self) -> None:
        self.granted = 0
        self.data = b""
        self.ends = 0
        self.pausing = False
        self.body: Body | None = None

    def consumed(self, size: int) -> None:
        self.granted += size

    def body_data(self, data: bytes) -> None:
        self.data += data
        if self.pausing and self.body is not None:
            self.body.pause()

    def body_end(self) -> None:
        self.ends += 1


@given(st.lists(st.sampled_from(["push", "push", "attach", "pause", "resume", "finish"]), max_size=30))
def test_any_order(events: list[str]) -> None:
    recorder = Recorder()
    body = recorder.body = Body(recorder)
    sent = b""
    done = False
    for at, event in enumerate(events):
        if event == "push" and not done:
            piece = bytes([at]) * (at + 1)
            sent += piece
            assert body.push(piece)
        elif event == "attach" and body.consumer is None:
            taken = body.take()
            recorder.data += taken
            body.consumer = recorder
            if done:
                recorder.ends += 1
        elif event == "pause":
            recorder.pausing = True
        elif event == "resume" and body.consumer is not None:
            recorder.pausing = False
            if body.paused:
                body.resume()
        elif event == "finish" and not done:
            done = True
            body.finish()
    if body.consumer is None:
        recorder.data += body.take()
    elif body.paused:
        recorder.pausing = False
        body.resume()
    assert recorder.data == sent
    assert body.received == len(sent)
    assert recorder.granted == len(sent)
    assert body.waiting == 0


def test_a_whole_body_can_be_taken_again() -> None:
    body = Body(None)
    body.push(b"ab")
    body.push(b"cd")
    body.finish()
    assert body.take() == b"abcd" == body.take()
    streamed = Body(None)
    streamed.push(b"ab")
    assert streamed.take() == b"ab"
    streamed.finish()
    assert not streamed.whole and streamed.take() == b""


def test_the_limit() -> None:
    body = Body(None)
    body.limit = 3
    assert body.push(b"abc")
    assert not body.push(b"d")
    assert body.take() == b"abc"


def test_what_nobody_wants_is_not_kept() -> None:
    recorder = Recorder()
    body = Body(recorder)
    body.push(b"ab")
    body.drop()
    assert body.push(b"cd")
    assert body.waiting == 0 and body.chunks == [] and recorder.granted == 0


def test_restore() -> None:
    body = Body(None)
    body.push(b"ab")
    body.finish()
    body.take()
    body.restore(b"ab")
    assert body.take() == b"ab" and body.whole


def test_request_header() -> None:
    request = Request(b"GET", b"h", b"/", [(b"a", b"1"), (b"a", b"2")], 0, 0, Peer("", trusted=False, secure=True))
    assert request.header(b"a") == b"1"
    assert request.header(b"b") is None


def test_faults() -> None:
    assert client_fault(400, "x", "m").outcome == "client: x"
    assert edge_fault(503, "x", "m").source is Source.EDGE
    fault = upstream_fault(502, "closed", "m", retry=True)
    assert fault.retry and fault.outcome == "upstream: closed" and str(fault) == "m"
