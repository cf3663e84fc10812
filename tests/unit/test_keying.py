# API keys of the edge in the pipeline: who passes, what the upstream sees, and what the key's own limits do.
"""keying.py with plan.py, gateway.py and admission.py, with real listeners' protocols and no sockets."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.edge import certificates
from support.hellos import records, vector_of
from support.pipeline import Stand
from unit.test_admission import header, status

from edgeproxy.config.keys import HASH
from edgeproxy.config.load import build
from edgeproxy.config.model import Config
from edgeproxy.config.secret import TO_WORKERS
from edgeproxy.message import Peer
from edgeproxy.observe.events import Events
from edgeproxy.policy.keytext import derive, hashed, make
from edgeproxy.prints import Prints
from edgeproxy.state.embedded import EmbeddedStore

PEPPER = derive(b"p" * 64)
KEYS = {name: make() for name in ("plain", "models", "bound", "old", "budget", "browser")}
MODELS: dict[str, dict[str, Any]] = {
    "plain": {}, "models": {"models": ["gpt-*"]}, "bound": {"networks": ["203.0.113.0/24"]}, "old": {"expires": "2020-01-01"},
    "budget": {"budget": {"tokens_per_day": 100}, "limits": ["mine"]}, "browser": {"ja4": ["t13d1517h2"]},
}  # fmt: skip
BODY = b'{"model":"%b","messages":[],"max_tokens":80}'


def text(name: str) -> bytes:
    return KEYS[name].text.encode("ascii")


def stand(tmp_path: Path, **changes: Any) -> Stand:
    paths = certificates()
    (tmp_path / "own").write_text("sk-upstream\n")
    (tmp_path / "pepper").write_bytes(b"p" * 64)
    keys = [{"id": KEYS[name].id, "name": name, "hash": HASH + hashed(text(name), PEPPER).hex(), **more}
            for name, more in MODELS.items()]  # fmt: skip
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({"keys": keys}))
    config = build({
        "listen": {"https": "127.0.0.1:8443", "admin": None},
        "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
        "upstreams": {"main": {"targets": [{"url": "http://127.0.0.1:1"}], "key": {"file": str(tmp_path / "own")}}},
        "routes": [
            {"path": "/v1/", "upstream": "main", "dialect": "openai"}, {"upstream": "main"},
            {"path": "/may/", "upstream": "main", "keys": "optional"},
        ],
        "shipped": {"baseline": False, "chat": False},
        "limits": [{"name": "mine", "requests": 2, "key": "edge.key.id", "named": True}],
        "keys": {"file": str(tmp_path / "keys.yaml"), "pepper": str(tmp_path / "pepper")},
        **changes,
    })  # fmt: skip
    made = Stand(Config.model_validate_json(config.model_dump_json(context=TO_WORKERS)))  # as it travels to a worker
    made.gateway.store = EmbeddedStore(clock=lambda: int(time.time() * 1e6))
    return made


def post(made: Stand, name: str | None, model: bytes = b"gpt-5", path: bytes = b"/v1/chat/completions", step: int = 0) -> bytes:
    body = BODY % model
    field = b"" if name is None else b"Authorization: Bearer %b\r\n" % text(name)
    sent = b"POST %b HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n%b" % (path, field, len(body), body)
    return made.h1().feed(sent, step=step).link.written


def code(written: bytes) -> tuple[int, str]:
    return status(written), json.loads(written.partition(b"\r\n\r\n")[2])["error"]["code"]


def test_who_passes(tmp_path: Path) -> None:
    made = stand(tmp_path)
    assert code(post(made, None)) == (401, "missing_api_key")
    assert header(post(made, None), b"www-authenticate") is not None
    assert code(post(made, "old")) == (401, "expired_api_key")
    assert code(post(made, "bound")) == (403, "api_key_not_allowed_here")
    assert status(post(made, "plain")) == 200
    (job,) = made.pool.jobs
    assert b"\r\nauthorization: " not in job.head.replace(b"authorization: Bearer sk-upstream", b""), "the edge's key stops here"
    assert text("plain") not in job.head
    head = job.exchange.plan.upstream_head(job.exchange.request, b"localhost", made.snapshot.upstreams["main"].credential)
    assert head.count(b"authorization") == 1 and b"\r\nauthorization: Bearer sk-upstream\r\n" in head
    assert status(post(made, None, path=b"/may/x")) == 200
    assert status(post(made, "old", path=b"/may/x")) == 401
    assert status(post(made, "old", path=b"/other")) == 200, "nobody looks there"
    assert text("old") not in made.pool.jobs[0].head, "and a credential still ends where the upstream has its own"


@pytest.mark.parametrize("step", [0, 7])
def test_a_key_for_certain_models(tmp_path: Path, step: int) -> None:
    made = stand(tmp_path)
    assert status(post(made, "models", b"gpt-4", step=step)) == 200
    assert code(post(made, "models", b"o3", step=step)) == (403, "model_not_allowed")
    assert code(post(made, "models", b'x","model":"', step=step)) == (403, "model_not_allowed")


def test_the_limits_and_the_budget_of_a_key(tmp_path: Path) -> None:
    made = stand(tmp_path)
    first = post(made, "budget")
    assert status(first) == 200 and b'"mine";q=2;w=60' in (header(first, b"ratelimit-policy") or b"")
    made.pool.answers = False
    post(made, "budget")
    assert code(post(made, "budget")) == (429, "insufficient_quota")
    assert header(post(made, "budget"), b"x-should-retry") == b"false"
    made.pool.answers = True
    assert header(post(made, "plain"), b"ratelimit") is None, "nobody else is under them"


@pytest.mark.parametrize(("client", "passes"), [("chromium", True), ("curl", False), ("", False), (None, True)])
def test_a_key_for_certain_programs(tmp_path: Path, client: str | None, passes: bool) -> None:
    """A hello that cannot be read (it may be too long on purpose) is of no family; where there is none, nobody is refused."""
    made = stand(tmp_path)
    assert made.snapshot.prints
    made.gateway.events = events = Events(str(tmp_path / "events"), made.stats)
    hello = records(bytes.fromhex(vector_of(client)["client_hello"])) if client else b""
    peer = made.peer

    def printed(*, secure: bool = True, trusted: bool = False) -> Peer:
        found = peer(secure=secure, trusted=trusted)
        found.prints = Prints(hello) if client is not None else None
        return found

    made.peer = printed  # type: ignore[method-assign]  # a client of ours
    written = post(made, "browser")
    if passes:
        assert status(written) == 200
        assert events.writer.lines == []
    else:
        assert code(written) == (403, "api_key_not_allowed_here")
        told = json.loads(events.writer.lines[0])
        assert (told["event"], told["ja4"]) == ("key_elsewhere", vector_of(client)["ja4"] if client else "")
    events.writer.close()


def test_where_a_key_is_seen_is_an_event(tmp_path: Path) -> None:
    made = stand(tmp_path)
    made.gateway.events = events = Events(str(tmp_path / "events"), made.stats)
    post(made, "bound")
    (line,) = events.writer.lines
    told = json.loads(line)
    assert (told["event"], told["name"], told["client"]) == ("key_elsewhere", "bound", "192.0.2.1")
    assert text("bound") not in line
    events.writer.close()
