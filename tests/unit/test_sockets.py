from __future__ import annotations

import errno
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from edgeproxy import datagrams
from edgeproxy.config.model import Address
from edgeproxy.sockets import BindError, listen

ANY = Address("127.0.0.1", 0)


def test_each_slot_has_its_own_socket_on_the_same_port() -> None:
    made = listen([ANY, ANY], [ANY], ANY, 3)
    try:
        ports = [[sock.getsockname()[1] for sock in slot.https + slot.http] for slot in made.slots]
        assert ports[0] == ports[1] == ports[2] and len(set(ports[0])) == 3
        inodes = {sock.fileno() for slot in made.slots for sock in slot.sockets}
        assert len(inodes) == 9
        first = made.slots[0].https[0]
        assert first.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        assert first.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert not first.getblocking()
        assert not first.get_inheritable()
        assert [line.split(":")[0] for line in made.served] == ["https", "https", "http", "admin http"]
        assert made.admin is not None
        # Another edge, which would set SO_REUSEPORT too, is told instead of getting half of the connections.
        with pytest.raises(BindError, match="another process listens there"):
            listen([Address("127.0.0.1", ports[0][0])], [], None, 1)
    finally:
        made.close()
    assert {sock.fileno() for slot in made.slots for sock in slot.sockets} == {-1}


def test_all_interfaces_take_ipv4_and_where_there_is_one_ipv6() -> None:
    made = listen([Address(None, 0)], [], None, 2)
    try:
        port = made.slots[1].https[0].getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 5).close()
    finally:
        made.close()


def test_nothing_stays_bound_when_one_address_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        with pytest.raises(BindError):
            listen([Address("127.0.0.1", port)], [Address("127.0.0.1", taken.getsockname()[1])], None, 2)
        with socket.create_server(("127.0.0.1", port)):
            pass


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (Address("192.0.2.1", 8443), "no such address"),
        (Address("no-such-host.invalid", 8443), "can't be resolved"),
        (Address(None, None, "/no/such/directory/sock"), "create it"),
    ],
)
def test_errors_name_the_address_and_what_to_do(address: Address, words: str) -> None:
    with pytest.raises(BindError) as error:
        listen([address], [], None, 1)
    assert str(address) in str(error.value) and words in str(error.value)


def test_unix_paths(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    address = Address(None, None, str(path))
    made = listen([address], [], None, 2)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert made.slots[0].own() == ([], [])  # shared: nothing to lend
    with pytest.raises(BindError, match="another process listens"):
        listen([address], [], None, 1)
    assert path.exists()  # the refusal has not removed the other's file
    made.close_traffic()
    again = listen([address], [], None, 1)  # stale now
    again.close()
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(BindError, match="is no socket"):
        listen([address], [], None, 1)
    assert path.read_text() == "precious"


def test_udp_stands_beside_tcp_of_https() -> None:
    made = listen([ANY, ANY], [ANY], ANY, 2, quic=True)
    try:
        for slot in made.slots:
            assert [sock.getsockname() for sock in slot.quic] == [sock.getsockname() for sock in slot.https]
            assert {sock.type for sock in slot.quic} == {socket.SOCK_DGRAM}
            assert set(slot.quic) < set(slot.sockets)
        assert not {sock.fileno() for sock in made.slots[0].quic} & {sock.fileno() for sock in made.slots[1].quic}
        port = made.slots[0].quic[0].getsockname()[1]
        assert made.served[:2] == [f"https://127.0.0.1:{port}", f"h3 on 127.0.0.1:{port}/udp"]
        assert made.slots[0].own()[0] == made.slots[0].https  # nobody is lent UDP
    finally:
        made.close()
    assert {sock.fileno() for slot in made.slots for sock in slot.quic} == {-1}


def test_unix_sockets_have_no_udp(tmp_path: Path) -> None:
    made = listen([Address(None, None, str(tmp_path / "sock")), ANY], [], None, 2, quic=True)
    try:
        assert [len(slot.quic) for slot in made.slots] == [1, 1]
        assert made.slots[1].quic[0].getsockname() == made.slots[1].https[1].getsockname()
    finally:
        made.close()


def test_a_taken_udp_port_is_explained_and_leaves_nothing_bound() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as another edge would
        with socket.create_server(("127.0.0.1", 0)) as free:  # so that nobody has the TCP port
            port = free.getsockname()[1]
            taken.bind(("127.0.0.1", port))
        with pytest.raises(BindError) as error:
            listen([Address("127.0.0.1", port)], [], None, 2, quic=True)
        said = str(error.value)
        assert said.startswith(f"can't listen on 127.0.0.1:{port}/udp: ")
        assert "ss -lunp" in said and "protocols: [h1, h2]" in said
        listen([Address("127.0.0.1", port)], [], None, 2).close()  # TCP is free


def test_port_0_is_chosen_again_when_udp_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bind, attempts = datagrams.bind, []

    def taken_twice(family: int, where: tuple[Any, ...], count: int, *, both_families: bool) -> list[socket.socket]:
        attempts.append(where)
        if len(attempts) < 3:
            raise OSError(errno.EADDRINUSE, "taken")
        return bind(family, where, count, both_families=both_families)

    monkeypatch.setattr(datagrams, "bind", taken_twice)
    made = listen([ANY], [], None, 2, quic=True)
    try:
        assert len(attempts) == 3
        assert made.slots[0].quic[0].getsockname() == made.slots[0].https[0].getsockname() == attempts[2]
    finally:
        made.close()


def test_a_connection_id_has_room_for_256_workers() -> None:
    with pytest.raises(BindError, match="room for 256 workers, not 257"):
        listen([ANY], [], None, 257, quic=True)
