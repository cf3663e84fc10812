# Files of keys: every problem at its place, no secret in any of them; and upstreams' own keys.
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.keys import DERIVED, stored

from edgeproxy.config.checks import Finding
from edgeproxy.config.keys import KeyBook, OptionalKeys, OptionalUpstreamKey, UpstreamKey, parse_time, show_time
from edgeproxy.config.keys_file import LoadedKeys, hide, read_keys, read_upstream_key
from edgeproxy.config.load import build
from edgeproxy.config.model import Config
from edgeproxy.config.problems import ConfigError, Invalid
from edgeproxy.config.secret import TO_WORKERS
from edgeproxy.policy.keys import Key, KeyRing
from edgeproxy.policy.keytext import make, pepper_id

PEPPER = "a pepper that is for tests and for nothing else\n"


def load(tmp_path: Path, text: str, limits: tuple[str, ...] | None = None) -> LoadedKeys:
    (tmp_path / "keys.yaml").write_text(text)
    (tmp_path / "pepper").write_text(PEPPER)
    return read_keys(tmp_path / "keys.yaml", tmp_path / "pepper", limits)


def said(loaded: LoadedKeys) -> list[str]:
    return [f"{each.line}:{each.column} {each.message}" for each in loaded.problems]


def test_a_whole_file(tmp_path: Path) -> None:
    made, old = make(), make()
    loaded = load(tmp_path, f"""\
# ours
pepper_id: "{pepper_id(DERIVED)}"
keys:
  - id: "{made.id}"
    name: team.chat
    hash: {stored(made)}
    created: 2026-11-22T14:00:00Z
    expires: 2027-02-20            # a day
    models: [gpt-*, small]
    limits: per-key
    budget: {{tokens_per_day: 1000, tokens_per_month: 20000}}
    tags: [beta]
    networks: [10.0.0.0/8, "2001:db8::/32"]
    ja4: t13d1516h2_8daaf6152771
    previous: {{hash: {stored(old)}, until: 2026-11-23T15:00:00+01:00}}
  - {{id: "00000000", name: gone, hash: {stored(old)}, revoked: true}}
""", ("per-key",))
    assert not loaded.problems and not loaded.findings and loaded.book is not None
    first, gone = loaded.book.keys
    assert (first.limits, first.models, first.budget.tokens_per_month) == (("per-key",), ("gpt-*", "small"), 20000)
    assert first.expires == parse_time("2027-02-20T00:00:00Z") and first.previous is not None
    assert show_time(first.previous.until or 0) == "2026-11-23T14:00:00Z"
    assert gone.revoked == 0.0
    # As it reaches the workers.
    there = KeyBook.model_validate_json(loaded.book.model_dump_json(context=TO_WORKERS))
    found = KeyRing(there).identify([(b"x-api-key", made.text.encode())], parse_time("2026-12-01"))
    assert isinstance(found, Key) and found.name == "team.chat" and found.elsewhere("10.1.1.1") is None


def test_every_problem_at_its_place(tmp_path: Path) -> None:
    made = make()
    loaded = load(tmp_path, f"""\
pepper_id: 0123456789abcdef
keys:
  - id: {made.id}x
    name: a b
    hash: {made.text}
    expires: 20-1-1
    modells: [x]
  - id: Ab3dEf9h
    name: two
    hash: {stored(made)}
    created: 2026-01-01
    expires: 2025-01-01
    models: ["*", "a*b"]
    limits: [per-keys, other]
    budget: {{tokens_per_day: 0, requests: 1}}
    networks: [10.0.0.1/8]
    ja4: [t13]
  - {{id: Ab3dEf9h, name: two, hash: {stored(made)}, created: 5}}
  - {{name: c}}
""", ("per-key",))
    assert loaded.book is None
    assert said(loaded) == [
        "3:9 that is not the id of a key",
        "4:11 'a b' is not a name",
        "5:11 that is not the hash of a key",
        "6:14 '20-1-1' is not a time",
        "7:5 unknown key 'modells'",
        "13:14 '*' is every model",
        "13:19 'a*b' has a '*' inside",
        "15:30 'keys[1].budget.tokens_per_day' must be at least 1",
        "15:33 unknown key 'requests'",
        "16:16 '10.0.0.1/8' has bits set beyond its prefix",
        "17:11 't13' is not a JA4 family",
        "18:120 expected a time, not the number 5",
        "19:5 'keys[3]' needs the key 'id'",
        "19:5 'keys[3]' needs the key 'hash'",
        "1:12 the hashes were made with another pepper",
        "18:10 id 'Ab3dEf9h' is there twice",
        "18:26 name 'two' is there twice",
    ]


def test_what_the_model_alone_does_not_see(tmp_path: Path) -> None:
    made = make()
    loaded = load(tmp_path, f"""\
keys:
  - {{id: Ab3dEf9h, name: a, hash: {stored(made)}, created: 2026-01-02, expires: 2026-01-01}}
  - id: Bb3dEf9h
    name: b
    hash: {stored(made)}
    previous: {{hash: {stored(made)}, until: 2026-01-01}}
    limits: [per-key, per-kay]
  - {{id: Cb3dEf9h, name: b, hash: {stored(made)}, revoked: 2026-01-01}}
""", ("per-key",))
    assert said(loaded) == [
        "2:139 the key expires before it was made",
        "6:15 the previous hash is the present one",
        "7:23 unknown limit 'per-kay'",
    ]
    assert loaded.problems[2].hint == "did you mean 'per-key'?"


@pytest.mark.parametrize("text", [
    "keys:\n  - {{id: Ab3dEf9h, name: a, hash: {key}}}\n",
    "keys:\n  - {{id: {key}, name: a, hash: x}}\n",
    "keys:\n  - {{id: Ab3dEf9h, name: {key}, hash: x}}\n",
    "keys:\n  - {{id: Ab3dEf9h, name: a, key: {key}}}\n",
    "keys:\n  - {{{key}: a}}\n",
    "keys: {key}\n",
    "{key}\n",
    "keys: [{key}\n",
    "keys:\n  - &{key} *{key}\n",
    "{key}: 1\n",
    "pepper_id: {key}\n",
    "keys:\n  - {{id: Ab3dEf9h, name: a, hash: x, models: ['*{key}'], networks: ['{key}'], ja4: ['{key}'], expires: '{key}'}}\n",
    "keys:\n  - {{id: Ab3dEf9h, name: a, hash: x, limits: '{key}', tags: ['{key}/'], budget: {{tokens_per_day: '{key}'}}}}\n",
])  # fmt: skip
def test_no_problem_shows_a_key_that_somebody_wrote_there(tmp_path: Path, text: str) -> None:
    made = make()
    right = "hash: {key}}}" in text  # a hash stands where it should
    for key in (made.text,) if right else (made.text, stored(made)):
        loaded = load(tmp_path, text.format(key=key), ())
        assert loaded.problems and loaded.book is None
        shown = "\n".join([str(ConfigError(loaded.problems)), repr(loaded.problems)])
        assert key[12:24] not in shown and key[-8:] not in shown


def test_the_caret_stays_where_it_was(tmp_path: Path) -> None:
    made = make()
    loaded = load(tmp_path, f"keys:\n  - {{id: Ab3dEf9h, name: a, hash: {made.text}, extra: 1}}\n")
    _, line, caret = next(each for each in loaded.problems if "extra" in each.message).render().splitlines()
    assert line[len(caret) - 1 :].startswith("extra: 1")


def test_hide_leaves_what_is_no_secret() -> None:
    kept = "t13d1516h2_8daaf6152771_02713d6af862 2026-11-22T14:00:00Z 'claude-sonnet-4' keys[0].budget.tokens_per_month"
    assert hide(kept) == kept
    assert hide("sk-proj-a_b-c0123456789") == "*" * 23


def test_files_that_are_not_there(tmp_path: Path) -> None:
    loaded = read_keys(tmp_path / "none.yaml", tmp_path / "none.pepper")
    assert [finding.path for finding in loaded.findings] == [("keys", "pepper"), ("keys", "file")]
    assert all("No such file" in finding.message for finding in loaded.findings) and loaded.book is None
    (tmp_path / "short").write_text("x" * 31 + "\n")
    (tmp_path / "empty.yaml").write_text("\n")
    loaded = read_keys(tmp_path / "empty.yaml", tmp_path / "short")
    assert [finding.path for finding in loaded.findings] == [("keys", "pepper")]
    (tmp_path / "short").write_text("x" * 32)
    loaded = read_keys(tmp_path / "empty.yaml", tmp_path / "short")
    assert loaded.book is not None and loaded.book.keys == ()


@pytest.mark.parametrize("text", ["2026-13-01", "2026-01-01T00:00:00", "2026-01-01 10:00", "today", "", "2026-01-01T25:00:00Z"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(Invalid):
        parse_time(text)


# -- upstreams -------------------------------------------------------------------------------------------------------

PATH = ("upstreams", "chat", "key")


def test_an_upstreams_key(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("sk-own-0123456789abcdef\n")
    of_file = read_upstream_key(PATH, UpstreamKey(file=tmp_path / "own", header="x-api-key"), {})
    of_env = read_upstream_key(PATH, UpstreamKey(env="OWN"), {"OWN": " sk-own-0123456789abcdef"})
    for found in (of_file, of_env):
        assert isinstance(found, UpstreamKey) and found.secret is not None
        assert found.secret.reveal() == b"sk-own-0123456789abcdef"
        assert "0123456789" not in repr(found) + found.model_dump_json() + str(found.model_dump())
        assert UpstreamKey.model_validate_json(found.model_dump_json(context=TO_WORKERS)) == found


@pytest.mark.parametrize("content", [
    b"", b" \n", b"two words", b"two\nlines", b"caf\xc3\xa9", b"x" * 8193, b"a\x00b", b"a\r\nb: c",
])  # fmt: skip
def test_what_is_no_key_of_an_upstream(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own").write_bytes(content)
    found = read_upstream_key(PATH, UpstreamKey(file=tmp_path / "own"), {})
    assert isinstance(found, Finding) and found.path == (*PATH, "file")
    text = content.decode("utf-8", "surrogateescape")
    found = read_upstream_key(PATH, UpstreamKey(env="OWN"), {"OWN": text})
    assert isinstance(found, Finding) and (not text.strip() or text.strip() not in found.message)


def test_an_upstreams_key_that_is_not_there(tmp_path: Path) -> None:
    for key in (UpstreamKey(file=tmp_path / "none"), UpstreamKey(env="NONE_OF_IT")):
        assert isinstance(read_upstream_key(PATH, key, {}), Finding)
    leaked = read_upstream_key(PATH, UpstreamKey(env="skproj0123456789abcdefghij"), {})
    assert isinstance(leaked, Finding) and "0123456789" not in leaked.message


# -- the configuration, as the lead wires it -------------------------------------------------------------------------


class Wired(Config):
    keys: OptionalKeys = None
    own: OptionalUpstreamKey = None


def base(**more: Any) -> dict[str, Any]:
    return {
        "listen": {"https": "127.0.0.1:8443"}, "tls": {"certificates": [{"cert": "a", "key": "b"}]},
        "upstreams": {"web": {"targets": [{"url": "http://127.0.0.1:9000"}]}}, "routes": [{"upstream": "web"}], **more,
    }  # fmt: skip


def test_the_sections_travel_with_their_secrets(tmp_path: Path) -> None:
    made = make()
    loaded = load(tmp_path, f"keys: [{{id: {made.id!r}, name: a, hash: '{stored(made)}'}}]\n")
    config = Wired.model_validate(base(keys={}, own={"env": "OWN"}))
    assert config.keys is not None and config.own is not None and config.keys.file == Path("keys.yaml")
    own = read_upstream_key(PATH, config.own, {"OWN": "sk-own-0123456789abcdef"})
    config = config.model_copy(update={"keys": config.keys.model_copy(update={"book": loaded.book}), "own": own})
    there = Wired.model_validate_json(config.model_dump_json(context=TO_WORKERS))
    assert there == config
    for shown in (config.model_dump_json(), repr(config), str(config.model_dump())):
        assert "sk-own" not in shown and DERIVED.hex() not in shown
    with pytest.raises(ValueError, match="hidden on its way"):
        Wired.model_validate_json(config.model_dump_json())
    schema = Wired.model_json_schema()
    assert "book" not in str(schema) and "secret" not in schema["$defs"]["UpstreamKey"]["properties"]


def test_no_problem_shows_a_key_that_stands_in_the_configuration(tmp_path: Path) -> None:
    key = "plainpassword-1"  # nothing that looks like a key
    from edgeproxy.config.load import load as load_config

    for text in (f"upstreams: {{web: {{key: {key}}}}}", f"upstreams:\n  web:\n    key: {{env: {key}}}"):
        (tmp_path / "edge.yaml").write_text(text + "\n")
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / "edge.yaml")
        assert key not in str(caught.value)
    (tmp_path / "edge.yaml").write_text("upstreams: {web: {api_key: sk-proj-0123456789, targets: 1}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "edge.yaml")
    assert "0123456789" not in str(caught.value)
    wrong = (key, {"env": key}, {"file": ""}, {"env": "A", "file": "b"}, {}, {"header": "cookie", "env": "A"}, {"secret": key})
    for value in wrong:
        with pytest.raises(ValueError) as refused:  # noqa: PT011  pydantic's, whatever it says
            Wired.model_validate(base(own=value), context="file")
        from edgeproxy.config import explain

        found = list(explain.findings(refused.value, Wired))  # type: ignore[arg-type]
        assert found and key not in str(found)


def test_what_is_absent_stays_absent_and_what_is_empty_is_not() -> None:
    config = Wired.model_validate(base())
    assert Wired.model_validate_json(config.model_dump_json(context=TO_WORKERS)) == config
    for section in ("keys", "own"):
        with pytest.raises(ValueError):  # noqa: PT011  pydantic's, whatever it says
            Wired.model_validate(base(**{section: None}), context="file")


def test_a_configuration_reads_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeproxy.certs import make_development

    made = make()
    load(tmp_path, f"keys: [{{id: {made.id!r}, name: a, hash: '{stored(made)}', limits: [per-ip]}}]\n")
    pair = make_development(tmp_path)
    web = {"targets": [{"url": "http://127.0.0.1:9000"}], "key": {"env": "OWN_KEY"}}
    data = base(
        keys={"file": str(tmp_path / "keys.yaml"), "pepper": str(tmp_path / "pepper")},
        upstreams={"web": web, "other": {"targets": web["targets"]}},
        tls={"certificates": [{"cert": str(pair.cert), "key": str(pair.key)}]},
    )
    monkeypatch.delenv("OWN_KEY", raising=False)
    with pytest.raises(ConfigError) as caught:
        build(data)
    assert [each.message for each in caught.value.problems] == [
        "upstreams.web.key.env: the environment variable 'OWN_KEY' is not set", "unknown limit 'per-ip'",
    ]  # fmt: skip
    (tmp_path / "keys.yaml").write_text((tmp_path / "keys.yaml").read_text().replace("per-ip", ""))
    monkeypatch.setenv("OWN_KEY", "sk-own-0123456789abcdef")
    config = build(data)
    there = Config.model_validate_json(config.model_dump_json(context=TO_WORKERS))
    assert there == config and there.keys is not None and there.keys.book is not None
    assert isinstance(KeyRing(there.keys.book).identify([(b"api-key", made.text.encode())], 0.0), Key)
    own = there.upstreams["web"].key
    assert own is not None and own.secret is not None and own.secret.reveal() == b"sk-own-0123456789abcdef"
    assert there.upstreams["other"].key is None
    shown = config.model_dump_json() + repr(config)
    assert "sk-own" not in shown and DERIVED.hex() not in shown
