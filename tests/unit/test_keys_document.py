# Keys of the edge in a real Redis: one document that nobody overwrites, and the command line on it.
from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from contract.test_store_ways import certificate, tls_port
from support.redis_server import MISSING, Server, running_cluster, running_sentinel, running_server, until
from typer.testing import CliRunner, Result

from edgeproxy import cli, keys_store
from edgeproxy.config.document import MAX_BYTES
from edgeproxy.config.keys_file import read_pepper_alone
from edgeproxy.config.keys_shared import with_book
from edgeproxy.config.model import Config
from edgeproxy.keys_asking import filled
from edgeproxy.keys_places import KeysError, RedisPlace
from edgeproxy.keys_redis import NAME, Shelf, Unreachable
from edgeproxy.keys_store import Place, create, listed, revoke, rotate

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
DOCS = Path(__file__).parents[2] / "docs"
NOW = 1_795_000_000.0


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.client.flushall()
    return running


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def place(url: str) -> Place:
    return Place(Path("keys.yaml"), Path("keys.pepper"), RedisPlace(url, 2.0))


def test_who_comes_second_changes_nothing(server: Server) -> None:
    one, other = Shelf(server.url), Shelf(server.url)
    assert one.read() == (b"", b"")
    assert one.write(b"first", b"")
    assert not other.write(b"second", b"")
    held = other.read()
    assert held is not None and held.text == b"first" and held.version
    assert one.read(held.version) is None
    assert other.write(b"second", held.version)
    assert not one.write(b"third", held.version)
    assert (one.read(held.version) or held).text == b"second"


def test_a_write_whose_answer_was_lost_counts(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(server.url)
    shelf.read()
    real = shelf._client.eval

    def twice(*arguments: Any) -> Any:
        real(*arguments)
        return real(*arguments)

    monkeypatch.setattr(shelf._client, "eval", twice)
    assert shelf.write(b"first", b"")


def test_bounds_and_what_is_none_of_ours(server: Server) -> None:
    shelf = Shelf(server.url)
    with pytest.raises(Unreachable, match="no room for another key"):
        shelf.write(b"x" * (MAX_BYTES + 1), b"")
    server.client.hset(NAME, "keys", b"x" * (MAX_BYTES + 1))
    with pytest.raises(Unreachable, match="larger than 1 MiB"):
        shelf.read()
    server.client.hset(NAME, "keys", b"x")
    with pytest.raises(Unreachable, match="not written by 'edgeproxy keys'"):
        shelf.read()
    server.client.delete(NAME)
    server.client.set(NAME, b"x")
    with pytest.raises(Unreachable, match="Redis refuses: WRONGTYPE"):
        shelf.read()


def test_a_user_of_its_own(server: Server) -> None:
    def url(user: str, password: str) -> str:
        return f"redis://{user}:{password}@127.0.0.1:{server.port}/1"

    # As the pages have them.
    pages = "".join((DOCS / name).read_text("utf-8") for name in ("limits.md", "keys.md"))
    for line in re.findall(r"^ACL SETUSER .*$", pages, re.MULTILINE):
        server.client.execute_command(*line.replace("PASSWORD", "geheim").split())
    assert Shelf(url("edge", "geheim")).write(b"x", b"")
    reader = Shelf(url("reader", "geheim"))
    assert (reader.read() or (b"", b""))[1] == b"x"
    with pytest.raises(Unreachable, match="refuses"):
        reader.write(b"y", b"")
    with pytest.raises(Unreachable) as caught:
        Shelf(url("edge", "falsch")).read()
    assert "falsch" not in str(caught.value)


def test_a_server_that_goes_and_comes_back() -> None:
    with running_server() as server:
        shelf = Shelf(server.url)
        assert shelf.write(b"x", b"")
        server.kill()
        with pytest.raises(Unreachable, match="cannot be reached"):
            shelf.read()
        server.restart()
        assert shelf.read() == (b"", b"")


def test_a_primary_that_is_none_any_more_is_not_asked() -> None:
    with running_sentinel() as watched:
        shelf = Shelf(watched.url)
        assert shelf.write(b"x", b"")
        primary = watched.primary()
        replica = next(server for server in watched.servers if server is not primary)
        until(lambda: replica.client.hget(NAME, "keys") == b"x", "the replica has it")
        primary.kill()

        def written() -> bool:
            try:
                held = shelf.read()
                return held is not None and shelf.write(b"y", held.version)
            except Unreachable:
                return False

        until(written, "the replica has taken over")
        primary.restart()
        assert (shelf.read() or (b"", b""))[1] == b"y"


def test_a_cluster() -> None:
    with running_cluster() as cluster:
        made = create(place(cluster.url), {"name": "team"}, NOW)[0]
        assert revoke(place(cluster.url), "team", NOW).id == made.id
        assert [key.revoked for key in listed(place(cluster.url))] == [NOW]


def test_tls(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with running_server() as server:
        port = tls_port(server, cert, key)
        assert Shelf(f"rediss://127.0.0.1:{port}/0?ca={cert}&cert={cert}&key={key}").write(b"x", b"")
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            Shelf(f"rediss://127.0.0.1:{port}/0").read()


@pytest.mark.parametrize("hangs", [False, True], ids=["refused", "hangs"])
@pytest.mark.parametrize(
    "url", ["redis://:s3cret@{0}/0", "redis+sentinel://:s3cret@{0},{1}/main", "redis+cluster://:s3cret@{0},{1}"]
)
def test_nobody_there(url: str, hangs: bool) -> None:
    """Said in one way, soon, and without what a connection is made with."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    shelf = Shelf(url.format(*(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)))
    if not hangs:
        for each in sockets:
            each.close()
    began = time.monotonic()
    with pytest.raises(Unreachable) as said:
        shelf.read()
    assert time.monotonic() - began < (8 if hangs else 2)
    assert len(str(said.value)) < 260 and "s3cret" not in str(said.value) and "Connection(" not in str(said.value)
    with pytest.raises(Unreachable):
        shelf.write(b"{}", b"")
    for each in sockets:
        each.close()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis+sentinel://127.0.0.1:1/main", "redis+cluster://127.0.0.1:1"])
def test_an_edge_begins_with_its_cache(server: Server, url: str) -> None:
    _, made = create(place(server.url), {"name": "one"}, NOW)
    text = Shelf(server.url).read()
    assert text is not None
    Path("cache.json").write_bytes(text.text)
    config = Config.model_validate({
        "listen": {"https": "127.0.0.1:8443"}, "tls": {"certificates": [{"cert": "a", "key": "b"}]},
        "upstreams": {"web": {"targets": [{"url": "http://127.0.0.1:9000"}]}}, "routes": [{"upstream": "web"}],
        "keys": {"redis": url, "pepper": "keys.pepper", "cache": "cache.json"},
    })  # fmt: skip
    empty = read_pepper_alone(Path("keys.pepper")).book
    assert empty is not None
    found = filled(with_book(config, empty)).keys
    assert found is not None and found.book is not None and [key.id for key in found.book.keys] == [made.id]


def test_many_at_once_lose_nothing(server: Server) -> None:
    create(place(server.url), {"name": "first"}, NOW)

    def work(number: int) -> None:
        where = place(server.url)
        for _ in range(20):  # a machine with two cores may let one of them always come last
            try:
                create(where, {"name": f"key-{number}"}, NOW)
                break
            except KeysError as error:
                assert "all the time" in str(error)
        rotate(where, f"key-{number}", 60, NOW)
        revoke(where, f"key-{number}", NOW)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    keys = listed(place(server.url))
    assert sorted(key.name for key in keys) == ["first", *(f"key-{number}" for number in range(6))]
    assert all(key.revoked == NOW and key.previous is not None for key in keys if key.name != "first")


def test_what_is_not_there_and_what_is_there_already(server: Server) -> None:
    where = place(server.url)
    with pytest.raises(KeysError, match="there are no keys in Redis"):
        listed(where)
    create(where, {"name": "team", "models": ["gpt-*"]}, NOW)
    with pytest.raises(KeysError, match="named 'team' already"):
        create(where, {"name": "team"}, NOW)
    with pytest.raises(KeysError, match="no key 'tem'"):
        revoke(where, "tem", NOW)
    Path("keys.pepper").write_text("another" * 10)
    with pytest.raises(KeysError, match="another pepper"):
        rotate(where, "team", 0, NOW)


def test_a_document_that_somebody_spoiled(server: Server) -> None:
    create(place(server.url), {"name": "team"}, NOW)
    data = json.loads(server.client.hget(NAME, "keys") or b"")
    secret = data["keys"][0]["hash"] = "ep-Ab3dEf9h-" + "x" * 46
    server.client.hset(NAME, "keys", json.dumps(data))
    with pytest.raises(KeysError) as caught:
        listed(place(server.url))
    assert "Redis: keys[0].hash: that is not the hash of a key" in str(caught.value) and secret not in str(caught.value)
    server.client.hset(NAME, "keys", b"[" * 100_000)
    with pytest.raises(KeysError, match="that is not JSON"):
        listed(place(server.url))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["keys", *arguments, "-c", "edge.yaml"])


@pytest.mark.parametrize("by", ["url", "store"])
def test_the_command(server: Server, by: str) -> None:
    section = {"redis": server.url if by == "url" else "store", "refresh": "3s"}
    Path("edge.yaml").write_text(yaml.safe_dump({"keys": section, "store": server.url, "nonsense": 1}))
    result = run("create", "--name", "team")
    assert result.exit_code == 0 and "is in Redis; it works on every edge within 3 s" in result.stderr, result.output
    text = result.stdout.strip()
    assert text.encode() not in b"".join(server.client.hgetall(NAME).values()) and not Path("keys.yaml").exists()
    assert "is revoked in Redis: it ends on every edge within 3 s" in run("revoke", text).stderr
    assert json.loads(run("list", "--json").stdout)["state"] == "revoked"


def test_a_section_that_names_no_place() -> None:
    for section, said in (({"redis": "store"}, "there is no key 'store'"), ({"redis": "http://x"}, "not the URL of a Redis")):
        Path("edge.yaml").write_text(yaml.safe_dump({"keys": section}))
        with pytest.raises(KeysError, match=said):
            keys_store.place(Path("edge.yaml"), None, None)
