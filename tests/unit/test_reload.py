from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from edgeproxy import reload
from edgeproxy.certs import make_development
from edgeproxy.children import Child
from edgeproxy.config.keys import KeyBook
from edgeproxy.config.keys_shared import with_book
from edgeproxy.config.model import Config
from edgeproxy.config.secret import Secret
from edgeproxy.ipc import TICKET_KEYS, Forget, Prepare, Rekey, Switch
from edgeproxy.reload import NoKeys, Reloads, applicable, with_keys

BASE: dict[str, Any] = {
    "listen": {"https": "127.0.0.1:8443", "http": "127.0.0.1:8080"},
    "tls": {"certificates": [{"cert": "edge.pem", "key": "edge-key.pem"}]},
    "upstreams": {"web": {"targets": [{"url": "http://127.0.0.1:9000"}]}},
    "routes": [{"upstream": "web"}],
}


def config(**changes: Any) -> Config:
    return Config.model_validate({**BASE, **changes})


class Recorder(Child):
    """A worker that only notes what it is sent."""

    def __init__(self, slot: int) -> None:
        super().__init__(f"worker-{slot}", slot, state="ready")
        self.sent: list[tuple[msgspec.Struct, bytes]] = []
        self.reachable = True
        self.killed = False

    def send(self, head: msgspec.Struct, blob: bytes = b"", fds: tuple[int, ...] = ()) -> bool:
        if self.reachable:
            self.sent.append((head, blob))
        return self.reachable

    def kill(self) -> None:
        self.killed = True

    @property
    def heads(self) -> list[msgspec.Struct]:
        return [head for head, _ in self.sent]


class Bench:
    def __init__(self, directory: Path) -> None:
        make_development(directory)
        self.file = directory / "edge.yaml"
        certificate = {"cert": str(directory / "edge.pem"), "key": str(directory / "edge-key.pem")}
        self.base = {**BASE, "tls": {"certificates": [certificate]}}
        self.workers = [Recorder(0), Recorder(1)]
        self.said: list[str] = []
        self.reloads = Reloads(Config.model_validate(self.base), self.file, None, self.workers, self.said.append)

    def begin(self, **changes: Any) -> None:
        self.file.write_text(yaml.safe_dump({**self.base, **changes}))
        self.reloads.begin()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_needs_no_restart_is_applied() -> None:
    wanted = config(drain="5s", access_log={"file": "a"})
    assert applicable(config(access_log={"file": "b"}), wanted) == (wanted, ())


def test_what_needs_a_restart_is_named_and_left() -> None:
    running = config()
    wanted = config(
        listen={"https": "127.0.0.1:1", "http": [], "admin": None, "public_port": 443},
        workers=4,
        access_log={"file": "a"},
        events={"file": "b"},
        drain="5s",
    )
    got, names = applicable(running, wanted)
    assert names == ("listen.https", "listen.http", "listen.admin", "workers", "access_log", "events")
    assert got == config(listen={**BASE["listen"], "public_port": 443}, drain="5s")


@pytest.mark.parametrize(
    ("running", "wanted", "got", "names"),
    [
        (["h1", "h2", "h3"], ["h2", "h1"], ("h2", "h1", "h3"), ("listen.protocols (h3)",)),
        (["h1", "h2"], ["h3", "h2"], ("h2",), ("listen.protocols (h3)",)),
        (["h1", "h2", "h3"], ["h3", "h1"], ("h3", "h1"), ()),
        (["h1", "h2"], ["h1"], ("h1",), ()),
    ],
)
def test_udp_sockets_come_and_go_by_a_restart_only(
    running: list[str], wanted: list[str], got: tuple[str, ...], names: tuple[str, ...]
) -> None:
    def listening(protocols: list[str]) -> Config:
        return config(listen={**BASE["listen"], "protocols": protocols})

    applied, needs_restart = applicable(listening(running), listening(wanted))
    assert (applied.listen.protocols, needs_restart) == (got, names)


def test_a_configuration_survives_its_way_to_the_workers() -> None:
    given = config(
        listen={"https": [":8443", "[::1]:1", "unix:/run/edge"]},
        trusted_proxies=["10.0.0.0/8", "fd00::/8"],
        access_log={"file": "-"},
        client={"max_body": "1MiB", "timeouts": {"idle": "1m"}, "h2": {"max_streams": 7}},
        upstreams={
            "web": {"targets": [{"url": "https://[::1]:9000"}], "timeouts": {"total": "off", "idle": "1h"}},
            "chat": {"targets": [{"url": "http://a:1"}], "keepalive": "0s", "timeouts": {"total": "10m"}},
        },
        routes=[{"upstream": "web", "models": {"gpt-*": "chat"}, "max_body": "20MiB", "dialect": "openai"}],
        hsts={"max_age": "730d"},
    )
    assert Config.model_validate_json(given.model_dump_json()) == given


def test_nobody_switches_before_all_are_prepared(bench: Bench) -> None:
    one, two = bench.workers
    bench.begin(drain="5s")
    head, blob = one.sent[0]
    assert head == Prepare(2)
    assert Config.model_validate_json(blob[TICKET_KEYS:]).drain == 5
    assert blob == two.sent[0][1]  # all with the same ticket keys …
    assert blob[:TICKET_KEYS] != bench.reloads.ticket_keys  # … and new ones
    bench.reloads.on_prepared(one, 2)
    assert bench.reloads.generation == 1 and not bench.reloads.switching
    bench.reloads.on_prepared(two, 2)
    assert one.heads[1:] == two.heads[1:] == [Switch(2)]
    assert bench.reloads.generation == 2 and bench.reloads.config.drain == 5
    assert bench.reloads.ticket_keys == blob[:TICKET_KEYS]
    assert bench.reloads.last is None  # not before all have it
    bench.reloads.on_switched(one, 2)
    bench.reloads.on_switched(two, 2)
    assert bench.reloads.last is not None and bench.reloads.last.result == "ok"
    assert bench.reloads.counts == {"ok": 1, "failed": 0}
    assert bench.reloads.changed and bench.reloads.deadline is None


def test_one_refusal_is_a_refusal_for_all(bench: Bench) -> None:
    one, two = bench.workers
    keys = bench.reloads.ticket_keys
    bench.begin(drain="5s")
    bench.reloads.on_prepared(one, 2)
    bench.reloads.on_failed(two, 2, "no such file: ca.pem")
    assert one.heads[-1] == Forget(2)
    assert (bench.reloads.generation, bench.reloads.config.drain, bench.reloads.ticket_keys) == (1, 30, keys)
    assert "no such file: ca.pem" in bench.said[-1]
    # What comes late from that attempt is turned away.
    bench.reloads.on_prepared(two, 2)
    assert two.heads[-1] == Forget(2)


def test_a_worker_that_dies_preparing_ends_the_attempt(bench: Bench) -> None:
    bench.begin()
    bench.reloads.on_gone(bench.workers[1])
    assert bench.reloads.counts["failed"] == 1 and not bench.workers[0].killed


def test_a_worker_that_dies_switching_does_not_hold_up_the_others(bench: Bench) -> None:
    one, two = bench.workers
    bench.begin()
    bench.reloads.on_prepared(one, 2)
    bench.reloads.on_prepared(two, 2)
    bench.reloads.on_gone(two)
    bench.reloads.on_switched(one, 2)
    assert bench.reloads.counts["ok"] == 1 and bench.reloads.generation == 2


def test_a_worker_that_starts_meanwhile_takes_part(bench: Bench) -> None:
    one, two = bench.workers
    two.reachable = False  # in back-off
    bench.begin()
    two.reachable = True
    bench.reloads.on_start(two)
    bench.reloads.on_prepared(one, 2)
    assert bench.reloads.generation == 1
    bench.reloads.on_prepared(two, 2)
    assert bench.reloads.generation == 2


def test_with_no_worker_alive_the_next_ones_get_it(bench: Bench) -> None:
    for worker in bench.workers:
        worker.reachable = False
    bench.begin(drain="5s")
    assert bench.reloads.generation == 2 and bench.reloads.config.drain == 5
    assert bench.reloads.counts["ok"] == 1


def test_the_slow_one_fails_a_preparation_and_is_replaced_in_a_switch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = bench.workers
    bench.begin()
    assert bench.reloads.deadline is not None
    bench.reloads.on_time(bench.reloads.deadline - 1)
    assert bench.reloads.deadline is not None
    bench.reloads.on_prepared(one, 2)
    bench.reloads.on_time(bench.reloads.deadline)
    assert "worker-1 took more than" in bench.said[-1] and not two.killed
    bench.begin()
    bench.reloads.on_prepared(one, 3)
    bench.reloads.on_prepared(two, 2)  # late, and about the attempt that failed
    assert not bench.reloads.switching
    bench.reloads.on_prepared(two, 3)
    bench.reloads.on_switched(one, 3)
    bench.reloads.on_time(bench.reloads.deadline)
    assert two.killed and not one.killed
    bench.reloads.on_gone(two)
    assert bench.reloads.counts == {"ok": 1, "failed": 1}


def test_a_bad_file_reaches_no_worker(bench: Bench) -> None:
    bench.begin(upstream={})
    assert bench.workers[0].sent == []
    assert bench.reloads.last is not None and "unknown key 'upstream'" in bench.reloads.last.reason


def test_signals_in_between_are_one_more_reload(bench: Bench) -> None:
    bench.begin()
    bench.begin()
    bench.begin(drain="7s")
    for generation in (2, 3):
        for worker in bench.workers:
            bench.reloads.on_prepared(worker, generation)
        for worker in bench.workers:
            bench.reloads.on_switched(worker, generation)
    assert bench.reloads.generation == 3 and bench.reloads.config.drain == 7
    assert bench.reloads.deadline is None


def test_the_command_line_is_stronger_than_the_file(bench: Bench) -> None:
    running = config(workers=2)
    reloads = Reloads(running, bench.file, 2, bench.workers, bench.said.append)
    bench.file.write_text(yaml.safe_dump({**bench.base, "workers": 8, "listen": BASE["listen"]}))
    reloads.begin()
    for worker in bench.workers:
        reloads.on_prepared(worker, 2)
    for worker in bench.workers:
        reloads.on_switched(worker, 2)
    assert reloads.last is not None and reloads.last.needs_restart == ()


def test_without_a_file_there_is_nothing_to_do(bench: Bench) -> None:
    reloads = Reloads(config(), None, None, bench.workers, bench.said.append)
    reloads.begin()
    assert bench.workers[0].sent == [] and reloads.counts == {"ok": 0, "failed": 0}
    assert reload.PREPARE_DEADLINE > 0


SHARED = {"redis": "redis://127.0.0.1:1/0"}
PEPPER = Secret(b"00")


def book(name: str) -> KeyBook:
    key = {"id": "Ab3dEf9h", "name": name, "hash": "blake2b:" + "0" * 64}
    return KeyBook.model_validate({"pepper": PEPPER, "keys": [key]})


def shared(name: str = "first", **changes: Any) -> Config:
    return with_book(config(keys={**SHARED, **changes}), book(name))


def names(config: Config) -> list[str]:
    assert config.keys is not None and config.keys.book is not None
    return [key.name for key in config.keys.book.keys]


def test_other_keys_go_to_workers_as_they_are(bench: Bench) -> None:
    reloads = bench.reloads
    reloads.config = shared()
    reloads.rekey(book("second"), b"the book")
    assert names(reloads.config) == ["second"] and reloads.generation == 1
    assert all(worker.sent == [(Rekey(), b"the book")] for worker in bench.workers)


@pytest.mark.parametrize(("changes", "expected"), [({}, "second"), ({"refresh": 3.0}, "other")])
def test_keys_that_come_while_a_reload_is_prepared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], expected: str
) -> None:
    """A configuration with its keys from the same place gets them, too; one with another place has its own."""
    reloads = bench.reloads
    reloads.config = shared()
    monkeypatch.setattr(reload, "load", lambda _: shared("other", **changes))
    monkeypatch.setattr(reload, "with_keys", lambda config, _: config)
    reloads.begin()
    reloads.rekey(book("second"), b"the book")
    assert names(reloads.config) == ["second"]
    for worker in bench.workers:
        reloads.on_prepared(worker, 2)
    assert (reloads.generation, names(reloads.config)) == (2, [expected])


def test_a_reload_does_not_ask_again_for_keys_that_it_has(bench: Bench) -> None:
    running = shared("newest")
    assert names(with_keys(shared("empty"), running)) == ["newest"]
    with pytest.raises(NoKeys, match="Redis cannot be reached"):
        with_keys(shared("empty", refresh=3.0), running)
