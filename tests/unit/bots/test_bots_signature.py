# What a signature of a request proves, and all the ways in which it does not.
"""bots/signature.py and bots/keys.py: Cloudflare's vectors, and ours (tests/support/signing.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA512
from hypothesis import given
from hypothesis import strategies as st
from support.shared import shared
from support.signing import NOW, Signer, b64url, request

from edgeproxy.bots import signature
from edgeproxy.bots.keys import PUBLISHED, Key, age, origin, read_directory, read_key, thumbprint
from edgeproxy.bots.signature import Signed, base, read
from edgeproxy.message import Request

SIGNER = Signer()


def signed_of(made: Request) -> Signed | str:
    inputs, values = signature.joined(made, b"signature-input"), signature.joined(made, b"signature")
    assert inputs is not None and values is not None
    return read(inputs, values, signature.joined(made, b"signature-agent"))


def right(made: Request, key: Key | None = None) -> bool:
    signed = signed_of(made)
    assert isinstance(signed, Signed), signed
    key = key or read_key(SIGNER.jwk())
    text = base(signed, made)
    return key is not None and text is not None and key.verifies(signed.signature, text)


def test_cloudflares_vectors() -> None:
    found = json.loads(shared("web-bot-auth/web_bot_auth_architecture_v1.json").read_text())
    assert len(found) == 4
    for vector in found:
        headers = [(name.replace("_", "-").encode(), vector[name].encode())
            for name in ("signature_agent", "signature_input", "signature") if name in vector]  # fmt: skip
        made = request(headers)
        assert vector["target_url"] == "https://example.com/path/to/resource"
        signed = signed_of(made)
        assert isinstance(signed, Signed)
        assert (signed.created, signed.expires) == (vector["created_ms"] // 1000, vector["expires_ms"] // 1000)
        assert signed.label == vector["label"] and signed.nonce == vector["nonce"]
        assert signed.agent == ("https://signature-agent.test" if "signature_agent" in vector else "")
        key = read_key(vector["key"])
        assert key is not None and thumbprint(vector["key"]) == signed.keyid
        assert key.algorithm == signed.algorithm
        assert right(made, key)
        assert not right(request(headers, authority=b"example.org"), key)
        # Everybody has the private halves of these.
        assert signed.keyid in PUBLISHED
        assert isinstance(read_directory(json.dumps({"keys": [vector["key"]]}).encode()), str)


# Made once by Signer(b"\x01" * 32); committed so that both sides cannot drift together.
COMMITTED = [
    (b"signature-agent", b'sig1="https://agent.example"'),
    (
        b"signature-input",
        b'sig1=("@authority" "@method" "@path" "signature-agent";key="sig1");created=1799999990;expires=1800000300;'
        b'keyid="UDDReOZl1ipXAfp9wYsm13sDBMK5og--QWdBjzuf6o4";tag="web-bot-auth"',
    ),
    (b"signature", b"sig1=:2Gcy3A8b0Kf3O0XnSxj5FboKSb0naLiUbK0d8Xb7hSd4FN46+U2uxR1UHTOyKwRHEqYgL0U5FiiFCLju2WIOAA==:"),
]


def test_a_committed_vector() -> None:
    made = request(COMMITTED, method=b"POST", target=b"/v1/chat?stream=1")
    assert right(made)
    assert right(request(COMMITTED, method=b"POST", target=b"/v1/chat?stream=0")), "the query is not covered"
    assert not right(request(COMMITTED, method=b"GET", target=b"/v1/chat"))
    assert not right(request(COMMITTED, method=b"POST", target=b"/v1/other"))


@pytest.mark.parametrize(
    ("component", "value"),
    [
        ('"@authority"', "example.com"),
        ('"@target-uri"', "https://example.com/a/b?x=1&y=a%20b&y=2"),
        ('"@method"', "POST"),
        ('"@scheme"', "https"),
        ('"@path"', "/a/b"),
        ('"@query"', "?x=1&y=a%20b&y=2"),
        ('"@request-target"', "/a/b?x=1&y=a%20b&y=2"),
        ('"@query-param";name="x"', "1"),
        ('"content-type"', "application/json"),
        ('"accept"', "text/html, text/plain"),
        ('"dict";key="b"', "2;q=1"),
        ('"dict";key="c"', "?1"),
        ('"host"', "example.com"),
    ],
)
def test_components(component: str, value: str) -> None:
    covered = [(component, value)]
    if component not in ('"@authority"', '"@target-uri"'):
        covered.insert(0, ('"@authority"', "example.com"))
    fields = SIGNER.fields(covered, agent=None)
    others = [(b"content-type", b" application/json "), (b"accept", b"text/html"), (b"accept", b"text/plain")]
    others.append((b"dict", b"a=1, b=2;q=1, c"))
    assert right(request(others + fields, method=b"POST", authority=b"Example.COM:443", target=b"/a/b?x=1&y=a%20b&y=2"))


@pytest.mark.parametrize(
    "component",
    ['"@status"', '"x-absent"', '"@query-param";name="y"', '"@query-param";name="z"', '"@authority";req', '"accept";sf',
     '"accept";bs', '"accept";tr', '"dict";key="z"', '"@method";key="x"', '"@query-param"', '"accept";key="a";sf'],
)  # fmt: skip
def test_components_that_are_not_there_or_not_understood(component: str) -> None:
    fields = SIGNER.fields([('"@authority"', "example.com"), (component, "x")], agent=None)
    made = request([(b"accept", b"a=1"), (b"dict", b"a=1"), *fields], target=b"/?y=1&y=2")
    signed = signed_of(made)
    assert isinstance(signed, Signed)
    assert base(signed, made) is None


def test_components_that_need_parsing_are_few() -> None:
    parameters = [(f'"@query-param";name="{name}"', "1") for name in "abcdefg"]
    query = b"/?" + b"&".join(b"%c=1" % name for name in b"abcdefg")
    for count, understood in ((6, True), (7, False)):
        made = request(SIGNER.fields([('"@authority"', "example.com"), *parameters[:count]], agent=None), target=query)
        signed = signed_of(made)
        assert isinstance(signed, Signed) and (base(signed, made) is not None) is understood
    made = request(SIGNER.fields([('"@authority"', "example.com"), *parameters[:1]], agent=None), target=b"/?a=" + b"1" * 5000)
    signed = signed_of(made)
    assert isinstance(signed, Signed) and base(signed, made) is None


def test_ports_and_schemes() -> None:
    fields = SIGNER.fields([('"@target-uri"', "http://example.com/")], agent=None)
    assert right(request(fields, authority=b"example.com:80", target=b"/", secure=False))
    assert not right(request(fields, authority=b"example.com:80", target=b"/", secure=True))
    fields = SIGNER.fields([('"@authority"', "example.com:8443")], agent=None)
    assert right(request(fields, authority=b"example.com:8443"))


@pytest.mark.parametrize(
    ("agent", "component", "value"),
    [
        (b'sig1="https://agent.example"', '"signature-agent";key="sig1"', '"https://agent.example"'),
        (b'other="https://agent.example"', '"signature-agent";key="other"', '"https://agent.example"'),
        (b'sig1="https://agent.example/";type=directory', '"signature-agent";key="sig1"', '"https://agent.example/";type=directory'),
        (b'"https://agent.example"', '"signature-agent"', '"https://agent.example"'),
        (b'"https://Agent.Example:443"', '"signature-agent"', '"https://Agent.Example:443"'),
        (b"https://agent.example", '"signature-agent"', "https://agent.example"),
        (b'x="https://agent.example"', '"signature-agent"', 'x="https://agent.example"'),
        (b'sig0="https://other.example", sig1="https://agent.example"', '"signature-agent";key="sig1"', '"https://agent.example"'),
    ],
)
def test_forms_of_an_agent(agent: bytes, component: str, value: str) -> None:
    made = request(SIGNER.fields([('"@authority"', "example.com"), (component, value)], agent))
    signed = signed_of(made)
    assert isinstance(signed, Signed) and signed.agent == "https://agent.example"
    assert right(made)


@pytest.mark.parametrize(
    ("agent", "component"),
    [
        (b'sig1="https://agent.example"', '"accept"'),
        (b'"https://agent.example"', '"accept"'),
        (b'"https://agent.example"', '"signature-agent";key="sig1"'),
        (b'a="https://a.example", b="https://b.example"', '"signature-agent"'),
        (b'a="https://a.example", b="https://b.example"', '"signature-agent";key="c"'),
        (b'sig1="https://agent.example/jwks.json";type=jwks_uri', '"signature-agent";key="sig1"'),
        (b"sig1=https", '"signature-agent";key="sig1"'),
        (b"sig1=(1 2)", '"signature-agent";key="sig1"'),
        (b"http://agent.example", '"signature-agent"'),
        (b"\xff", '"signature-agent"'),
        (b"", '"signature-agent"'),
    ],
)
def test_agents_that_are_not_covered_or_not_understood(agent: bytes, component: str) -> None:
    fields = SIGNER.fields([('"@authority"', "example.com"), (component, "x")], agent)
    assert signed_of(request([(b"accept", b"x"), *fields])) == "covers no agent"


@pytest.mark.parametrize(
    "url",
    ["http://agent.example", "https://127.0.0.1", "https://[::1]", "https://localhost", "https://agent.example/path",
     "https://user@agent.example", "https://agent.example?x", "ftp://agent.example", "https://agent.example:0", "https://a..b",
     "https://" + "a." * 130 + "example", "https://1.2", "data:,x", "https://agent.example#x", "https://ag ent.example"],
)  # fmt: skip
def test_what_is_no_origin(url: str) -> None:
    assert origin(url) is None
    text = f'"{url}"'
    fields = SIGNER.fields([('"@authority"', "example.com"), ('"signature-agent"', text)], text.encode())
    assert signed_of(request(fields)) == "agent"


def parts(inputs: str, value: str = "sig1=:AAAA:") -> Signed | str:
    return read(inputs.encode(), value.encode(), None)


@pytest.mark.parametrize(
    ("inputs", "refusal"),
    [
        ('sig1=("@authority");created=1;expires=2;keyid="k";tag="other"', ""),
        ('sig1=("@authority");created=1;expires=2;keyid="k"', ""),
        ("sig1=1;tag=\"web-bot-auth\"", ""),
        ('sig1=("@authority"', "malformed"),
        ('sig1=("@authority");created=1;keyid="k";tag="web-bot-auth"', "no times"),
        ('sig1=("@authority");expires=2;keyid="k";tag="web-bot-auth"', "no times"),
        ('sig1=("@authority");created;expires=2;keyid="k";tag="web-bot-auth"', "no times"),
        ('sig1=("@authority");created=1;expires=2.5;keyid="k";tag="web-bot-auth"', "no times"),
        ('sig1=("@authority");created=1;expires=86402;keyid="k";tag="web-bot-auth"', "lives too long"),
        ('sig1=("@authority");created=5;expires=5;keyid="k";tag="web-bot-auth"', "expired"),
        ('sig1=("@authority");created=1;expires=2;tag="web-bot-auth"', "no key id"),
        ('sig1=("@authority");created=1;expires=2;keyid=k;tag="web-bot-auth"', "no key id"),
        ('sig1=("@authority");created=1;expires=2;keyid="";tag="web-bot-auth"', "no key id"),
        ('sig1=("@authority");created=1;expires=2;keyid="k";alg="hmac-sha256";tag="web-bot-auth"', "algorithm"),
        ('sig1=("@authority");created=1;expires=2;keyid="k";nonce=1;tag="web-bot-auth"', "malformed"),
        ('sig1=("@method");created=1;expires=2;keyid="k";tag="web-bot-auth"', "covers no authority"),
        ('sig1=();created=1;expires=2;keyid="k";tag="web-bot-auth"', "covers no authority"),
        ('sig1=("@authority";req);created=1;expires=2;keyid="k";tag="web-bot-auth"', "covers no authority"),
        ('sig1=("@authority" "@authority");created=1;expires=2;keyid="k";tag="web-bot-auth"', "component"),
        ('sig1=(@authority);created=1;expires=2;keyid="k";tag="web-bot-auth"', "malformed"),
        ('sig1=("@Authority");created=1;expires=2;keyid="k";tag="web-bot-auth"', "component"),
        ('sig1=(1);created=1;expires=2;keyid="k";tag="web-bot-auth"', "component"),
        ('sig2=("@authority");created=1;expires=2;keyid="k";tag="web-bot-auth"', "no signature"),
    ],
)  # fmt: skip
def test_refusals(inputs: str, refusal: str) -> None:
    assert parts(inputs) == refusal


@pytest.mark.parametrize("value", ["", "sig1=::", 'sig1="x"', "sig1=(:AAAA:)", "sig1=:" + "A" * 1000 + ":", "sig1=:A:", "\x80"])
def test_signatures_that_are_none(value: str) -> None:
    assert parts('sig1=("@authority");created=1;expires=2;keyid="k";tag="web-bot-auth"', value) == "no signature"


def test_the_tagged_one_of_several() -> None:
    other = 'proxy=("@method");created=1;tag="other"'
    mine = 'bot=("@authority");created=1;expires=2;keyid="k";tag="web-bot-auth"'
    found = parts(f"{other}, {mine}", "proxy=:AAAA:, bot=:BBBB:")
    assert isinstance(found, Signed) and found.label == "bot"
    assert found.parameters == mine.removeprefix("bot=")


def test_nothing_of_a_field_with_other_bytes_is_signed() -> None:
    fields = SIGNER.fields([('"@authority"', "example.com"), ('"x-a"', "caf\xe9")], agent=None)
    made = request([(b"x-a", b"caf\xe9"), *fields])
    signed = signed_of(made)
    assert isinstance(signed, Signed) and base(signed, made) is None


def test_rsa() -> None:
    private = rsa.generate_private_key(65537, 2048)
    numbers = private.public_key().public_numbers()
    jwk = {"kty": "RSA", "n": b64url(numbers.n.to_bytes(256, "big")), "e": "AQAB", "alg": "PS512"}
    key = read_key(jwk)
    assert key is not None and key.algorithm == "rsa-pss-sha512"
    made = private.sign(b"x", padding.PSS(padding.MGF1(SHA512()), 64), SHA512())
    assert key.verifies(made, b"x") and not key.verifies(made, b"y") and not key.verifies(b"", b"x")
    # PKCS#1 v1.5, and another length of salt, are not rsa-pss-sha512.
    assert not key.verifies(private.sign(b"x", padding.PKCS1v15(), SHA512()), b"x")
    assert not key.verifies(private.sign(b"x", padding.PSS(padding.MGF1(SHA512()), 32), SHA512()), b"x")
    small = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    assert read_key({"kty": "RSA", "n": b64url(small.n.to_bytes(128, "big")), "e": "AQAB"}) is None


@pytest.mark.parametrize(
    "change",
    [{"use": "enc"}, {"crv": "X25519"}, {"kty": "EC"}, {"x": "AA"}, {"x": 5}, {"x": None}, {"x": "=" * 2000}, {"alg": "ES256"},
     {"x": "é"}],
)  # fmt: skip
def test_keys_that_are_none(change: dict[str, Any]) -> None:
    assert read_key({**SIGNER.jwk(), **change}) is None
    assert read_key([change]) is None


def test_directories() -> None:
    found = read_directory(json.dumps({"keys": [SIGNER.jwk(kid="any", nbf=1, exp=2_000_000_000_000), {"kty": "EC"}]}).encode())
    assert isinstance(found, dict) and list(found) == [SIGNER.keyid]
    key = found[SIGNER.keyid]
    assert (key.begins, key.ends) == (1.0, 2_000_000_000.0), "milliseconds are read as such"
    assert isinstance(read_directory(json.dumps(SIGNER.jwk()).encode()), dict), "one key alone"
    for wrong in (b"", b"x", b"[]", b"{}", b'{"keys": 5}', b'{"keys": []}', b'{"keys": [5, null, {}]}', b"\xff", b"[" * 50_000,
                  json.dumps({"keys": [SIGNER.jwk()] * 33}).encode(), b" " * 65_537):  # fmt: skip
        assert isinstance(read_directory(wrong), str), wrong[:20]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, 3600), ("", 3600), ("max-age=600", 600), ("public, max-age=5", 60), ("MAX-AGE=999999999", 86400),
     ("no-store, max-age=9000", 60),
     ("s-maxage=600", 3600), ("max-age=-1", 3600)],
)  # fmt: skip
def test_ages(text: str | None, seconds: float) -> None:
    assert age(text) == seconds


@given(st.binary(max_size=400), st.binary(max_size=200), st.none() | st.binary(max_size=200))
def test_garbage(inputs: bytes, values: bytes, agents: bytes | None) -> None:
    found = read(inputs, values, agents)
    if isinstance(found, Signed):
        base(found, request())


@given(st.integers(0, 400), st.integers(0, 255), st.sampled_from([0, 1, 2]))
def test_a_changed_byte_is_never_right(place: int, byte: int, which: int) -> None:
    fields = SIGNER.usual()
    name, value = fields[which]
    place %= len(value)
    changed = value[:place] + bytes([byte]) + value[place + 1 :]
    if changed == value:
        return
    fields[which] = (name, changed)
    made = request(fields)
    signed = signed_of(made)
    if not isinstance(signed, Signed):
        return
    text = base(signed, made)
    key = read_key(SIGNER.jwk())
    assert key is not None
    original = signed_of(request(SIGNER.usual()))
    assert isinstance(original, Signed)
    if text is not None and key.verifies(signed.signature, text):
        # Only what the signature does not cover may have changed: nothing of what it says.
        assert (signed.agent, signed.keyid, signed.created, signed.expires, signed.signature) == (
            original.agent, original.keyid, original.created, original.expires, original.signature)  # fmt: skip


def test_now_is_within() -> None:
    signed = signed_of(request(SIGNER.usual()))
    assert isinstance(signed, Signed) and signed.created <= NOW < signed.expires
