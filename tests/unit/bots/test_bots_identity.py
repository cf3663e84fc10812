# Who is verified, by what, and who is not: addresses, host names, signatures, and what is not known yet.
"""bots/identity.py and the Keyring of bots/keys.py."""

from __future__ import annotations

from typing import Any

import pytest
from support.signing import NOW, Signer, request

from edgeproxy.bots import identity as module
from edgeproxy.bots.catalogue import Bot, Catalogue
from edgeproxy.bots.identity import NOBODY, Identity, Nonces, Verified, agents_of
from edgeproxy.bots.keys import MAX_AGE, RETRY, ROTATED, Key, Keyring, read_directory
from edgeproxy.bots.names import Names
from edgeproxy.bots.ranges import NOTHING, Published
from edgeproxy.message import Headers
from edgeproxy.rules.addresses import Ranges, client_code, parse_range

BOTH = Bot("Both", "A", "Search Engine Crawler", ("bothbot",), ("both",), ("both.example",))
NETS = Bot("Nets", "B", "AI Crawler", ("netsbot",), ("nets",))
HOST = Bot("Host", "C", "AI Search", ("hostbot",), (), ("host.example",))
NONE = Bot("None", "D", "Other", ("nonebot",))
AGENT = Bot("Agent", "E", "AI Assistant", ("agentbot",), (), (), ("https://agent.example",))
CATALOGUE = Catalogue([BOTH, NETS, HOST, NONE, AGENT], {"both": "https://both.example/x.json", "nets": "https://nets.example/x.json"})
SIGNER = Signer()


def networks(**named: str) -> Published:
    found = {name: parse_range(text) for name, text in named.items()}
    return Published({name: Ranges([each]) for name, each in found.items() if not isinstance(each, str)})


class Stand:
    """An Identity, and what it asks for."""

    def __init__(self, published: Published = NOTHING, *, take: bool = True, **options: Any) -> None:
        self.names_wanted: list[int] = []
        self.agents_wanted: list[str] = []
        self.take = take
        self.names = Names(lambda code: self.note(self.names_wanted, code))
        self.keyring = Keyring(CATALOGUE.agents, lambda agent: self.note(self.agents_wanted, agent))
        self.identity = Identity(CATALOGUE, agents_of(CATALOGUE, ()), published, self.names, self.keyring, **options)

    def note(self, wanted: list[Any], what: Any) -> bool:
        wanted.append(what)
        return self.take

    def hold(self, now: float = NOW, lasting: float = 3600, signer: Signer = SIGNER) -> None:
        keys = read_directory(signer.directory())
        assert isinstance(keys, dict)
        self.keyring.put("https://agent.example", keys, lasting, now)

    def of(self, agent: bytes = b"", fields: Headers | None = None, client: str = "192.0.2.5", now: float = NOW) -> Verified:
        headers = [(b"user-agent", agent)] if agent else []
        return self.identity.of(request(headers + (fields or [])), client, now)


def code(text: str) -> int:
    found = client_code(text)
    assert found is not None
    return found


# By address


def test_who_claims_nothing() -> None:
    stand = Stand(networks(nets="192.0.2.0/24"))
    assert stand.of(b"Mozilla/5.0") is NOBODY and stand.of() is NOBODY
    assert stand.of(b"Mozilla/5.0", [(b"user-agent", b"netsbot")]) is NOBODY, "the first one counts"


@pytest.mark.parametrize("client", ["192.0.2.5", "::ffff:192.0.2.5"])
def test_by_range(client: str) -> None:
    stand = Stand(networks(nets="192.0.2.0/24"))
    assert stand.of(b"netsbot/1", client=client) == Verified(NETS, True, "range", False, NETS, False, False, "", "")
    assert stand.names_wanted == []


def test_outside_of_all_ranges_is_somebody_else() -> None:
    stand = Stand(networks(nets="192.0.2.0/24"))
    for client in ("198.51.100.1", "2001:db8::1"):
        assert stand.of(b"netsbot/1", client=client) == NOBODY._replace(claimed=NETS, failed=True)


def test_without_its_file_nothing_is_known() -> None:
    found = Stand().of(b"netsbot/1")
    assert found == NOBODY._replace(claimed=NETS) and not found.failed


def test_no_address() -> None:
    assert Stand(networks(nets="192.0.2.0/24")).of(b"netsbot/1", client="") == NOBODY._replace(claimed=NETS)


def test_who_cannot_be_verified_never_fails() -> None:
    assert Stand().of(b"nonebot") == NOBODY._replace(claimed=NONE)
    assert Stand().of(b"agentbot") == NOBODY._replace(claimed=AGENT), "it may not have signed"


def test_by_host_name() -> None:
    stand = Stand()
    assert stand.of(b"hostbot") == NOBODY._replace(claimed=HOST, pending=True)
    assert stand.of(b"hostbot").pending and stand.names_wanted == [code("192.0.2.5")]
    stand.names.put(code("192.0.2.5"), ("a.host.example",), NOW)
    assert stand.of(b"hostbot") == Verified(HOST, True, "dns", False, HOST, False, False, "", "")
    # The same host is no other operator's.
    both = Stand(networks(both="198.51.100.0/24"))
    both.names.put(code("192.0.2.5"), ("a.host.example",), NOW)
    assert both.of(b"bothbot") == NOBODY._replace(claimed=BOTH, failed=True)


def test_no_host_name_is_somebody_else_and_no_answer_is_not() -> None:
    stand = Stand()
    stand.names.put(code("192.0.2.5"), (), NOW)
    assert stand.of(b"hostbot") == NOBODY._replace(claimed=HOST, failed=True)
    stand.names.put(code("192.0.2.5"), None, NOW)
    assert stand.of(b"hostbot") == NOBODY._replace(claimed=HOST, pending=True)


def test_fails_only_when_all_ways_did() -> None:
    stand = Stand()
    stand.names.put(code("192.0.2.5"), (), NOW)
    assert not stand.of(b"bothbot").failed, "its file is missing"
    stand = Stand(networks(both="198.51.100.0/24"))
    assert stand.of(b"bothbot").pending and not stand.of(b"bothbot").failed
    without = Identity(CATALOGUE, {}, networks(both="198.51.100.0/24"), None, None)
    assert not without.of(request([(b"user-agent", b"bothbot")]), "192.0.2.5", NOW).failed, "nobody asked for its name"


def test_queues_that_are_full_are_pending() -> None:
    stand = Stand(take=False)
    assert stand.of(b"hostbot").pending and stand.of(b"hostbot", now=NOW + 1).pending
    assert len(stand.names_wanted) == 1


# By signature


def test_a_signature() -> None:
    stand = Stand()
    waiting = stand.of(b"Mozilla/5.0", SIGNER.usual())
    assert waiting == NOBODY._replace(claimed=AGENT, pending=True, refusal="no key")
    assert stand.agents_wanted == ["https://agent.example"]
    stand.hold()
    right = Verified(AGENT, True, "signature", False, AGENT, False, True, "https://agent.example", "")
    assert stand.of(b"Mozilla/5.0", SIGNER.usual()) == right
    assert stand.of(b"", SIGNER.usual()) == right
    assert stand.of(b"nonebot", SIGNER.usual()) == right._replace(claimed=NONE), "who signs is who it is"
    assert len(stand.agents_wanted) == 1


def test_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stand, calls = Stand(), []
    stand.hold()
    verifies = Key.verifies
    monkeypatch.setattr(Key, "verifies", lambda *given: (calls.append(given), verifies(*given))[1])
    fields = SIGNER.usual()
    assert all(stand.of(b"", fields).verified for _ in range(5)) and len(calls) == 1
    wrong = [(name, value.replace(b"sig1=:A", b"sig1=:B")) for name, value in SIGNER.usual(created=int(NOW) - 20)]
    wrong[-1] = (b"signature", b"sig1=:" + b"A" * 86 + b"==:")
    assert [stand.of(b"", wrong).refusal for _ in range(3)] == ["wrong"] * 3 and len(calls) == 2
    # The same signature for another host is looked at anew, and is wrong.
    other = request(fields, authority=b"other.example")
    assert stand.identity.of(other, "192.0.2.5", NOW).refusal == "wrong" and len(calls) == 3


@pytest.mark.parametrize(
    ("changes", "now", "refusal"),
    [
        ({}, NOW + 299, ""), ({}, NOW + 300, "expired"), ({}, NOW - 11, "from the future"), ({}, NOW - 10, ""),
        ({"agent": b'sig1="https://other.example"'}, NOW, "agent not allowed"), ({"agent": None}, NOW, "covers no agent"),
        ({"more": ';alg="ed25519"'}, NOW, ""), ({"more": ';alg="rsa-pss-sha512"'}, NOW, "algorithm"), ({"tag": "other"}, NOW, ""),
        ({"expires": int(NOW) + 86400}, NOW, "lives too long"),
    ],
)  # fmt: skip
def test_when_and_what_is_refused(changes: dict[str, Any], now: float, refusal: str) -> None:
    stand = Stand()
    stand.hold()
    found = stand.of(b"", SIGNER.usual(**changes), now=now)
    assert found.refusal == refusal and found.verified is (not refusal and changes.get("tag") is None)
    assert not found.failed


def test_a_signature_that_proves_nothing_leaves_the_address() -> None:
    stand = Stand(networks(nets="192.0.2.0/24"))
    stand.hold()
    found = stand.of(b"netsbot", SIGNER.usual(), now=NOW + 999)
    assert found == Verified(NETS, True, "range", False, NETS, False, False, "", "expired")
    assert stand.of(b"netsbot", SIGNER.usual(), now=NOW + 999, client="198.51.100.1").failed


def test_keys_of_one_agent_prove_nothing_about_another() -> None:
    other = Signer(b"\x02" * 32)
    agents = agents_of(CATALOGUE, ["https://other.example/"])
    assert agents["https://other.example"] == Bot("other.example", "other.example", "Other", agents=("https://other.example",))
    keyring = Keyring(agents, lambda _: True)
    for agent, signer in (("https://agent.example", SIGNER), ("https://other.example", other)):
        keys = read_directory(signer.directory())
        assert isinstance(keys, dict)
        keyring.put(agent, keys, 3600, NOW)
    found = Identity(CATALOGUE, agents, NOTHING, None, keyring)
    assert found.of(request(SIGNER.usual()), "", NOW).verified
    assert found.of(request(other.usual()), "", NOW).refusal == "key unknown"
    with pytest.raises(ValueError, match=r"http://x\.example"):
        agents_of(CATALOGUE, ["http://x.example"])


def test_nonces_are_spent_by_right_signatures_only() -> None:
    stand = Stand(spend=Nonces())
    stand.hold()
    fields = SIGNER.usual(more=';nonce="n"')
    wrong = [*fields[:-1], (b"signature", b"sig1=:" + b"A" * 86 + b"==:")]
    assert stand.of(b"", wrong).refusal == "wrong"
    assert stand.of(b"", fields).verified
    assert stand.of(b"", fields).refusal == "replayed"
    assert stand.of(b"", SIGNER.usual(more=';nonce="m"')).verified
    without = SIGNER.usual()
    assert stand.of(b"", without).verified and stand.of(b"", without).verified
    lenient = Stand()
    lenient.hold()
    assert lenient.of(b"", fields).verified and lenient.of(b"", fields).verified


def test_a_nonce_is_told_before_it_is_spent() -> None:
    stand = Stand(networks(both="192.0.2.0/24"), spend=Nonces())
    stand.hold()
    of = request([(b"user-agent", b"bothbot/1"), *SIGNER.usual(more=';nonce="n"')])
    found, nonce = stand.identity.examine(of, "192.0.2.5", NOW)
    assert found.how == "signature" and nonce is not None and (len(nonce.key), nonce.expires) == (16, NOW + 300)
    assert stand.identity.examine(of, "192.0.2.5", NOW) == (found, nonce), "looking spends nothing"
    assert stand.identity.first(nonce, NOW) and not stand.identity.first(nonce, NOW)
    left = stand.identity.unproven(found, of, "192.0.2.5", NOW, "replayed")
    assert (left.how, left.refusal, left.signed, left.pending) == ("range", "replayed", False, False), "it is one by its address"
    elsewhere = stand.identity.unproven(found, of, "198.51.100.1", NOW, "undecided", pending=True)
    assert not elsewhere.verified and elsewhere.pending and elsewhere.claimed is BOTH
    unnamed = request(SIGNER.usual(more=';nonce="m"'))
    found, other = stand.identity.examine(unnamed, "", NOW)
    assert other is not None and other.key != nonce.key
    left = stand.identity.unproven(found, unnamed, "", NOW, "replayed")
    assert left == NOBODY._replace(claimed=AGENT, refusal="replayed")
    assert stand.identity.examine(request(SIGNER.usual()), "", NOW)[1] is None
    lenient = Stand()
    lenient.hold()
    assert lenient.identity.examine(of, "", NOW)[1] is None and lenient.identity.first(nonce, NOW)


def test_nonces_are_bounded_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NONCES", 3)
    spend = Nonces()
    assert spend(b"a", 10.0, 0.0) and not spend(b"a", 10.0, 9.0) and spend(b"a", 20.0, 10.0)
    assert all(spend(key, 20.0, 10.0) for key in (b"b", b"c", b"d"))
    assert spend(b"a", 20.0, 10.0), "the oldest was forgotten"
    assert not spend(b"d", 20.0, 10.0)


@pytest.mark.parametrize(
    "fields",
    [
        [(b"signature-input", b"")], [(b"signature-input", b"\xff"), (b"signature", b"\xff")],
        [(b"signature-input", b"a=1"), (b"signature", b"a=1")],
        [(b"signature-input", b'a=();tag="web-bot-auth"')] * 40 + [(b"signature", b"a=::")], [(b"signature", b"a=::")],
    ],
)  # fmt: skip
def test_garbage_is_unverified(fields: list[tuple[bytes, bytes]]) -> None:
    assert not Stand().of(b"", fields).verified and not Stand().of(b"nonebot", fields).failed


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_READ", 5)
    monkeypatch.setattr(module, "MAX_VERIFIED", 5)
    stand = Stand()
    stand.hold()
    for number in range(20):
        assert stand.of(b"", SIGNER.usual(expires=int(NOW) + 1 + number)).verified
    assert len(stand.identity._read) == len(stand.identity._verified) == 5
    stand.of(b"", [(b"signature-input", b"x" * 3000), (b"signature", b"")])
    assert len(stand.identity._read) == 5


# Directories


def keyring() -> tuple[Keyring, list[str], dict[str, Key]]:
    wanted: list[str] = []

    def want(agent: str) -> bool:
        wanted.append(agent)
        return True

    keys = read_directory(SIGNER.directory())
    assert isinstance(keys, dict)
    return Keyring(["https://a.example"], want), wanted, keys


def test_a_directory_is_renewed_before_it_runs_out() -> None:
    ring, wanted, keys = keyring()
    ring.put("https://a.example", keys, 1000, 0)
    key = keys[SIGNER.keyid]
    assert ring.find("https://a.example", SIGNER.keyid, 799) == (key, False) and wanted == []
    assert ring.find("https://a.example", SIGNER.keyid, 800) == (key, False) and len(wanted) == 1
    assert ring.find("https://a.example", SIGNER.keyid, 801) == (key, False) and len(wanted) == 1, "somebody is at it"
    assert ring.find("https://a.example", SIGNER.keyid, 900) == (key, False) and len(wanted) == 2, "no answer ever came"
    ring.fail("https://a.example", 900)
    assert ring.find("https://a.example", SIGNER.keyid, 999) == (key, False) and len(wanted) == 2
    assert ring.find("https://a.example", SIGNER.keyid, 1000) == (None, False), "what was removed there is no key here"
    assert ring.find("https://a.example", SIGNER.keyid, 900 + RETRY) == (None, True) and len(wanted) == 3


def test_a_key_that_a_directory_lacks_is_looked_for_again() -> None:
    ring, wanted, keys = keyring()
    ring.put("https://a.example", keys, MAX_AGE, 0)
    assert ring.find("https://a.example", "new", ROTATED - 1) == (None, False) and wanted == []
    assert ring.find("https://a.example", "new", ROTATED) == (None, True) and len(wanted) == 1
    assert ring.find("https://a.example", SIGNER.keyid, ROTATED)[0] is not None


def test_keys_have_times() -> None:
    ring, _, keys = keyring()
    ring.put("https://a.example", {"k": keys[SIGNER.keyid]._replace(begins=10.0, ends=20.0)}, 1000, 0)
    assert [ring.find("https://a.example", "k", now)[0] is not None for now in (9, 10, 19, 20)] == [False, True, True, False]


def test_agents_after_a_reload() -> None:
    ring, _, keys = keyring()
    ring.put("https://a.example", keys, 1000, 0)
    ring.allow(["https://a.example", "https://b.example"])
    assert ring.find("https://a.example", SIGNER.keyid, 1)[0] is not None
    assert ring.find("https://b.example", SIGNER.keyid, 1) == (None, True)
    ring.allow(["https://b.example"])
    assert "https://a.example" not in ring and ring.find("https://a.example", SIGNER.keyid, 1) == (None, False)
    ring.put("https://a.example", keys, 1000, 1)
    ring.fail("https://a.example", 1)
    assert "https://a.example" not in ring
