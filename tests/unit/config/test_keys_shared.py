# Keys that several edges share: what the configuration says of their place, and what becomes of keys that do not fit an edge.
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeproxy.config.keys import KeyBook, KeyModel
from edgeproxy.config.keys_file import hash_text
from edgeproxy.config.keys_shared import same_place, unknown_limits, usable, with_book
from edgeproxy.config.load import load
from edgeproxy.config.model import Config
from edgeproxy.config.secret import TO_WORKERS, Secret
from edgeproxy.config.snapshot import Snapshot
from edgeproxy.policy.keys import Key
from edgeproxy.policy.keytext import derive, hashed, make
from edgeproxy.reload import applicable

from .samples import NOW, Writer

PEPPER = b"a pepper of more than thirty-two bytes"
DERIVED = derive(PEPPER)
KEYS = "\nkeys: {redis: 'redis://:geheim@127.0.0.1:1/0', pepper: '%s'}\n"


@pytest.fixture
def text(tmp_path: Path, files: Writer) -> str:
    (tmp_path / "pepper").write_bytes(PEPPER)
    return files.text() + KEYS % (tmp_path / "pepper")


def read(files: Writer, content: str) -> Config:
    return load(files.write(content), now=NOW)


def a_key(name: str, **more: Any) -> tuple[KeyModel, bytes]:
    made = make()
    content = made.text.encode("ascii")
    return KeyModel(id=made.id, name=name, hash=hash_text(hashed(content, DERIVED)), **more), content


def book(*keys: KeyModel) -> KeyBook:
    return KeyBook(pepper=Secret(DERIVED.hex().encode("ascii")), keys=keys)


def test_who_reads_a_configuration_asks_nobody(files: Writer, text: str) -> None:
    config = read(files, text)
    assert config.keys is not None and config.keys.book == book() and config.keys.redis is not None
    assert config.keys.redis.reveal() == b"redis://:geheim@127.0.0.1:1/0" and config.keys.refresh == 2.0
    assert "geheim" not in repr(config) and "geheim" not in config.model_dump_json()
    told = Config.model_validate_json(config.model_dump_json(context=TO_WORKERS))
    assert same_place(told, config)


def test_the_store_is_a_place(files: Writer, text: str) -> None:
    config = read(files, text.replace("redis://:geheim@127.0.0.1:1/0", "store") + "store: redis://127.0.0.1:7/3\n")
    assert config.keys is not None and config.keys.redis is not None
    assert config.keys.redis.reveal() == b"redis://127.0.0.1:7/3"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{redis: store}", "there is no key 'store'"),
        ("{redis: 'redis://h/0', file: keys.yaml}", "keys are kept in one place"),
        ("{refresh: 3s}", "'refresh' is of keys in Redis alone"),
        ("{cache: x}", "'cache' is of keys in Redis alone"),
        ("{redis: 'http://:geheim@h/0'}", "this is not the URL of a Redis"),
        ("{redis: 5}", "this is not the URL of a Redis"),
        ("{redis: 'redis://h/0', refresh: 10ms}", "refresh"),
    ],
)
def test_what_is_wrong_with_a_place(files: Writer, written: str, said: str) -> None:
    problems = "\n".join(problem.render() for problem in files.problems(f"{files.text()}\nkeys: {written}\n"))
    assert said in problems and "geheim" not in problems


def test_another_place_is_another(files: Writer, text: str) -> None:
    config = read(files, text)
    assert same_place(config, with_book(config, book(a_key("team")[0])))
    assert not same_place(config, read(files, text.replace(":1/0", ":1/1")))
    assert not same_place(config, read(files, text.replace("keys: {", "keys: {refresh: 3s, ")))
    assert not same_place(read(files, files.text()), read(files, files.text())), "there is none at all"
    assert applicable(config, read(files, text.replace(":1/0", ":1/1")))[1] == (), "no restart is needed"


def test_a_key_that_names_an_unknown_limit_lets_nobody_pass(files: Writer, text: str) -> None:
    limit = "limits: [{name: known, requests: 5}]\n"
    fits, good = a_key("fits", limits=("known",))
    not_here, bad = a_key("other", limits=("known", "unknown"))
    over = a_key("over", limits=("unknown",), revoked=1.0)[0]
    keys = book(fits, not_here, over)
    assert unknown_limits(keys, {"known"}) == {not_here.id: "unknown"}
    assert usable(keys, {"known", "unknown"}) is keys
    snapshot = Snapshot(with_book(read(files, text + limit), keys), b"")
    assert snapshot.keys is not None
    assert isinstance(snapshot.keys.recognise(good, 0), Key) and not isinstance(snapshot.keys.recognise(bad, 0), Key)


def test_other_keys_leave_everything_else_as_it_was(files: Writer, text: str) -> None:
    before = Snapshot(read(files, text), b"")
    key, content = a_key("team", budget={"tokens_per_day": 7})
    after = before.with_keys(book(key))
    assert before.keys is not None and after.keys is not None
    assert not isinstance(before.keys.recognise(content, 0), Key) and isinstance(after.keys.recognise(content, 0), Key)
    assert list(after.budgets) == [key.id] and not before.budgets
    others = [name for name in Snapshot.__slots__ if name not in ("keys", "budgets")]
    assert all(getattr(before, name) is getattr(after, name) for name in others)
