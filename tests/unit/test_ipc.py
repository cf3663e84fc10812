from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from edgeproxy import ipc
from edgeproxy.ipc import (
    Ask,
    Channel,
    ChannelClosed,
    Decoder,
    Drain,
    GiveBack,
    IpcError,
    Lend,
    Prepare,
    Ready,
    Report,
    Switch,
    ToSupervisor,
    ToWorker,
    encode,
)

STREAM = encode(Prepare(2), b"\0blob\xff") + encode(Switch(2)) + encode(Drain(1.5), b"") + encode(Lend(3, 1))
MESSAGES = [(Prepare(2), b"\0blob\xff"), (Switch(2), b""), (Drain(1.5), b""), (Lend(3, 1), b"")]


@pytest.fixture
def ends() -> Iterator[tuple[Channel[Any], Channel[Any]]]:
    ours, theirs = ipc.pair(ToSupervisor, ToWorker)
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_frames_split_at_every_byte(at: int) -> None:
    decoder: Decoder[Any] = Decoder(ToWorker)
    assert decoder.feed(STREAM[:at]) + decoder.feed(STREAM[at:]) == MESSAGES


def test_frames_byte_by_byte() -> None:
    decoder: Decoder[Any] = Decoder(ToWorker)
    assert [message for byte in STREAM for message in decoder.feed(bytes([byte]))] == MESSAGES


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("!II", ipc.MAX_HEAD + 1, 0),
        struct.pack("!II", 2, ipc.MAX_BLOB + 1),
        struct.pack("!II", 2, 0) + b"{}",
        struct.pack("!II", 3, 0) + b"\xff\xff\xff",
        encode(Ask(1)),  # of another conversation
        encode(Ready(1)),
    ],
)
def test_what_is_no_frame_of_this_conversation(data: bytes) -> None:
    decoder: Decoder[Any] = Decoder(ToWorker)
    with pytest.raises(IpcError):
        decoder.feed(data)


def test_bounds_hold_for_the_sender_too() -> None:
    with pytest.raises(IpcError):
        encode(Report("x" * ipc.MAX_HEAD, 0, 0, 0))


def test_a_large_blob_passes_in_pieces(ends: tuple[Channel[Any], Channel[Any]]) -> None:
    ours, theirs = ends
    blob = os.urandom(5 << 20)  # far more than a socket buffer
    ours.send(Prepare(7), blob)
    ours.send(Switch(7))
    assert ours.wants_write
    received = []
    while len(received) < 2:
        received += theirs.receive()
        ours.flush()
    assert not ours.wants_write
    assert received[0] == (Prepare(7), blob, [])
    assert received[1].head == Switch(7)
    assert theirs.receive() == []  # nothing more, and no blocking


def test_descriptors_arrive_with_their_own_message(ends: tuple[Channel[Any], Channel[Any]]) -> None:
    ours, theirs = ends
    pipes = [os.pipe() for _ in range(3)]
    ours.send(Switch(1))
    ours.send(Lend(1, 1), fds=(pipes[0][1], pipes[1][1]))
    ours.send(Lend(2, 1), fds=(pipes[2][1],))
    ours.send(GiveBack(1))
    for _, write_end in pipes:
        os.close(write_end)  # the sender's copies are its own affair
    received: list[Any] = []
    while len(received) < 4:
        received += theirs.receive()
    assert [message.head for message in received] == [Switch(1), Lend(1, 1), Lend(2, 1), GiveBack(1)]
    assert [len(message.fds) for message in received] == [0, 2, 1, 0]
    for (read_end, _), fd in zip(pipes, received[1].fds + received[2].fds, strict=True):
        os.write(fd, b"x")
        os.close(fd)
        assert os.read(read_end, 2) == b"x"
        os.close(read_end)


def test_what_was_said_before_the_end_is_still_heard(ends: tuple[Channel[Any], Channel[Any]]) -> None:
    ours, theirs = ends
    theirs.send(Ready(1))
    theirs.socket.shutdown(socket.SHUT_WR)
    assert [message.head for message in ours.receive()] == [Ready(1)]
    with pytest.raises(ChannelClosed):
        ours.receive()


def test_sending_to_nobody(ends: tuple[Channel[Any], Channel[Any]]) -> None:
    ours, theirs = ends
    theirs.close()
    with pytest.raises(ChannelClosed):
        ours.send(Switch(1))


def test_descriptors_of_unsent_messages_are_closed(ends: tuple[Channel[Any], Channel[Any]]) -> None:
    ours = ends[0]
    read_end, write_end = os.pipe()
    ours.send(Prepare(1), bytes(5 << 20))
    ours.send(Lend(1, 1), fds=(write_end,))  # waits behind it
    os.close(write_end)
    ours.close()
    assert os.read(read_end, 1) == b""  # no writer is left
    os.close(read_end)
