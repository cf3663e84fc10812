# Who a request comes from, and what is said to those who may not pass.
from __future__ import annotations

import gc
import tracemalloc

import msgspec
import pytest
from support.keys import NOW, model, one, ring, stored

from edgeproxy.chat.dialects import error_body
from edgeproxy.message import Headers
from edgeproxy.policy.keys import Key, KeyProblem, KeyRing, refused
from edgeproxy.policy.keytext import Made, make


def bearer(text: str) -> Headers:
    return [(b"accept", b"*/*"), (b"authorization", b"Bearer " + text.encode())]


def key(found: object) -> Key:
    assert isinstance(found, Key), found
    return found


def problem(found: object) -> KeyProblem:
    assert isinstance(found, KeyProblem), found
    return found


@pytest.mark.parametrize("field", [
    (b"authorization", b"Bearer %b"), (b"authorization", b"bearer %b"), (b"authorization", b"BEARER  %b "),
    (b"authorization", b"%b"), (b"x-api-key", b"%b"), (b"api-key", b"%b"),
])  # fmt: skip
def test_each_carrier(field: tuple[bytes, bytes]) -> None:
    made, keys = one()
    found = key(keys.identify([(b"accept", b"*/*"), (field[0], field[1] % made.text.encode())], NOW))
    assert found.id == made.id and not found.old


def test_no_credential_is_nobody() -> None:
    _, keys = one()
    assert keys.identify([(b"accept", b"*/*"), (b"x-api-key", b"")], NOW) is None
    assert keys.identify([], NOW) is None


def test_other_fields_carry_no_keys() -> None:
    made, keys = one()
    assert keys.identify([(b"cookie", made.text.encode()), (b"x-key", made.text.encode())], NOW) is None


def test_what_is_wrong_with_a_text() -> None:
    made, keys = one()
    text = made.text
    typo = text[:-1] + ("A" if text[-1] != "A" else "B")
    said = {
        "foreign": ["sk-proj-0123456789", "", "Basic dXNlcjpwYXNz", text.upper()],
        "malformed": [typo, text[:40], text + "x", "ep-", "ep-" + made.id, "ep-" + "é" * 60, "ep-" + "A" * 30_000],
        "unknown": [make().text, make(made.id).text],
    }
    for kind, texts in said.items():
        for each in texts:
            found = keys.identify([(b"x-api-key", each.encode() or b"x")], NOW)
            assert problem(found).kind == kind, each[:80]


def test_a_guess_at_a_known_id_is_told_apart_for_logs_only() -> None:
    made, keys = one()
    guess, stranger = problem(keys.identify(bearer(make(made.id).text), NOW)), problem(keys.identify(bearer(make().text), NOW))
    assert (guess.key, guess.key_id, stranger.key_id) == (None, made.id, "")
    assert guess.fault.message == stranger.fault.message


def test_two_keys_in_one_request() -> None:
    one_key, other = make(), make()
    keys = ring(model(one_key), model(other))
    both = [*bearer(one_key.text), (b"x-api-key", other.text.encode())]
    assert problem(keys.identify(both, NOW)).kind == "mixed"
    same = [*bearer(one_key.text), (b"x-api-key", one_key.text.encode())]
    assert key(keys.identify(same, NOW)).id == one_key.id
    # A client library's own idea of a key beside ours: ours is meant.
    beside = [(b"x-api-key", b"dummy"), *bearer(other.text)]
    assert key(keys.identify(beside, NOW)).id == other.id


def test_expired_and_revoked() -> None:
    made, keys = one(expires=NOW)
    assert key(keys.identify(bearer(made.text), NOW - 1)).over(NOW - 1) is None
    assert problem(keys.identify(bearer(made.text), NOW)).kind == "expired"
    assert problem(key(keys.identify(bearer(made.text), NOW - 1)).over(NOW)).kind == "expired"
    for when in (0.0, NOW - 5, NOW + 1e6):  # the clock of who revoked it may be ahead
        made, keys = one(revoked=when, expires=NOW + 10)
        found = problem(keys.identify(bearer(made.text), NOW))
        assert found.kind == "revoked" and found.key is not None and found.key.id == made.id


def rotated(until: float, **fields: object) -> tuple[Made, Made, KeyRing]:
    old = make()
    new = make(old.id)
    return old, new, ring(model(new, previous={"hash": stored(old), "until": until}, **fields))


def test_after_a_rotation_both_work_for_a_while() -> None:
    old, new, keys = rotated(NOW + 60)
    assert not key(keys.identify(bearer(new.text), NOW)).old
    before = key(keys.identify(bearer(old.text), NOW))
    assert before.old and before.id == new.id
    assert problem(before.over(NOW + 60)).kind == "rotated"
    assert problem(keys.identify(bearer(old.text), NOW + 60)).kind == "rotated"
    assert key(keys.identify(bearer(new.text), NOW + 1e9)).over(NOW + 1e9) is None


def test_a_rotation_prolongs_nothing() -> None:
    old, new, keys = rotated(NOW + 60, expires=NOW + 10)
    assert [problem(keys.identify(bearer(each.text), NOW + 10)).kind for each in (old, new)] == ["expired", "expired"]
    old, new, keys = rotated(NOW + 60, revoked=NOW)
    assert [problem(keys.identify(bearer(each.text), NOW)).kind for each in (old, new)] == ["revoked", "revoked"]


def test_models() -> None:
    made, keys = one(models=["gpt-*", "small"])
    found = key(keys.identify(bearer(made.text), NOW))
    assert found.restricted
    assert [found.allows(name) for name in ("gpt-4o", "gpt-", "small", "gpt", "smaller", "", "x")] == [True] * 3 + [False] * 4
    assert found.model_problem("small") is None
    assert problem(found.model_problem("large")).kind == "model"
    assert problem(found.model_problem(None)).kind == "no_model"  # a body that hides its model is no way around
    made, keys = one()
    free = key(keys.identify(bearer(made.text), NOW))
    assert free.allows("anything") and free.model_problem(None) is None


@pytest.mark.parametrize(("address", "allowed"), [
    ("10.1.2.3", True), ("192.0.2.7", True), ("192.0.2.8", False), ("2001:db8::1", True), ("2001:db9::1", False),
    ("::ffff:10.1.2.3", True), ("", False), ("nonsense", False),
])  # fmt: skip
def test_networks(address: str, allowed: bool) -> None:
    made, keys = one(networks=["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])
    found = key(keys.identify(bearer(made.text), NOW)).elsewhere(address)
    assert (found is None) == allowed
    assert found is None or (found.kind, found.fault.status) == ("elsewhere", 403)


def test_ja4_families() -> None:
    made, keys = one(ja4=["t13d1516h2", "q13d0310h3_55b375c5d22e_cd85d2d88918"])
    found = key(keys.identify(bearer(made.text), NOW))
    assert found.elsewhere("192.0.2.1", None) is None  # not known is no reason
    assert found.elsewhere("192.0.2.1", "t13d1516h2_8daaf6152771_02713d6af862") is None
    assert found.elsewhere("192.0.2.1", "q13d0310h3_55b375c5d22e_cd85d2d88918") is None
    for other in ("q13d0310h3_55b375c5d22e_000000000000", "t13d1516h1_8daaf6152771_02713d6af862", "t13d1516h22", ""):
        assert problem(found.elsewhere("192.0.2.1", other)).kind == "elsewhere"


def test_what_a_key_says() -> None:
    made, keys = one(limits=["per-key"], tags=["beta"], budget={"tokens_per_day": 5, "tokens_per_month": 100})
    found = key(keys.identify(bearer(made.text), NOW))
    assert (found.limits, found.tags, found.tokens_per_day, found.tokens_per_month) == (("per-key",), ("beta",), 5, 100)
    assert keys.keys[made.id] is found


def all_problems() -> list[tuple[KeyProblem, str]]:
    """One of each kind, with the text that was sent."""
    found: list[tuple[KeyProblem, str]] = []
    for fields in ({"expires": NOW}, {"revoked": NOW}):
        made, keys = one(**fields)
        found.append((problem(keys.identify(bearer(made.text), NOW)), made.text))
    made, keys = one(networks=["10.0.0.0/8"], models=["small"])
    good = key(keys.identify(bearer(made.text), NOW))
    found += [(problem(each), made.text) for each in (good.elsewhere("::1"), good.model_problem("x"), good.model_problem(None))]
    guess = make(made.id).text
    for text in (make().text, guess, made.text[:-1], "sk-live-0123456789abcdef"):
        found.append((problem(keys.identify(bearer(text), NOW)), text))
    old, _, keys = rotated(NOW)
    found.append((problem(keys.identify(bearer(old.text), NOW)), old.text))
    found.append((problem(keys.identify([*bearer(guess), (b"api-key", make().text.encode())], NOW)), guess))
    found.append((problem(refused(None, "required")), "ep-"))
    return found


def test_problems_in_each_dialect() -> None:
    kinds = set()
    for each, _ in all_problems():
        kinds.add(each.kind)
        status = 403 if each.kind in ("elsewhere", "model", "no_model") else 401
        assert each.fault.status == status
        assert [name for name, _ in each.fault.fields] == ([b"www-authenticate"] if status == 401 else [])
        openai = msgspec.json.decode(error_body("openai", each.fault, "ray"))["error"]
        anthropic = msgspec.json.decode(error_body("anthropic", each.fault, "ray"))["error"]
        assert openai["type"] == ("permission_error" if status == 403 else "invalid_request_error")
        assert openai["code"] == each.fault.reason
        assert anthropic["type"] == ("permission_error" if status == 403 else "authentication_error")
    assert len(kinds) == 11
    codes = {each.kind: each.fault.reason for each, _ in all_problems()}
    assert {codes[kind] for kind in ("foreign", "malformed", "unknown", "mixed")} == {"invalid_api_key"}


def test_nothing_that_is_shown_holds_a_secret() -> None:
    for each, text in all_problems():
        shown = [repr(each), repr(each.key), repr(each.fault), str(each.fault), each.fault.outcome, str(each.fault.fields)]
        shown += [error_body(dialect, each.fault, "ray").decode() for dialect in ("openai", "responses", "anthropic")]
        if each.key is not None:
            shown += [repr(each.key.model), str(each.key.model)]
        secret = text[12:] if text.startswith("ep-") else text
        assert not [part for part in shown if len(secret) > 8 and (secret[:12] in part or stored_digest(text) in part)]
    _, keys = one()
    assert repr(keys) == "KeyRing(1 keys)"


def stored_digest(text: str) -> str:
    return stored(Made("", text)).removeprefix("blake2b:")


def test_what_routes_demand() -> None:
    made, keys = one()
    good, wrong = keys.identify(bearer(made.text), NOW), keys.identify(bearer(make().text), NOW)
    foreign, nobody = keys.identify(bearer("eyJhbGciOi"), NOW), keys.identify([], NOW)
    said = {
        demand: [each.kind if (each := refused(found, demand)) is not None else None for found in (good, wrong, foreign, nobody)]
        for demand in ("required", "optional", "off")
    }
    assert said == {
        "required": [None, "unknown", "foreign", "missing"],
        "optional": [None, "unknown", None, None],
        "off": [None, None, None, None],
    }


def test_a_flood_of_wrong_keys_takes_no_memory() -> None:
    made, keys = one()
    floods = [bearer(make(made.id if number % 2 else None).text) for number in range(2000)]
    keys.identify(floods[1], NOW)
    gc.collect()
    tracemalloc.start()
    for headers in floods:
        assert problem(keys.identify(headers, NOW)).kind == "unknown"
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 4096
