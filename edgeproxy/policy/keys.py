# Who a client is by its API key, and what that key may do; how keys are written is keytext.py's, where they lie keys_file.py's.
"""`KeyRing`: the keys of a snapshot, compiled. `identify` reads a request's fields; the rest asks the `Key` that it found.

A key is looked up by its public id, and its keyed hash is compared in constant time. Nothing is remembered of any request,
so that a flood of wrong keys takes no memory. What time does to a key (it expires, its old secret ends) is asked again for
each exchange: `Key.over(now)`.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, Literal

from edgeproxy.config.keys import HASH, KeyBook, KeyModel, Previous, RouteKeys
from edgeproxy.faults import Fault, client_fault
from edgeproxy.message import Headers
from edgeproxy.policy.credentials import CARRIERS
from edgeproxy.policy.keytext import DIGEST, ID, LENGTH, PERSON, PREFIX, wrong
from edgeproxy.rules.addresses import Ranges, client_code, parse_range

Kind = Literal[
    "missing", "foreign", "malformed", "unknown", "mixed", "revoked", "expired", "rotated", "elsewhere", "model", "no_model",
]  # fmt: skip

# Status, code for clients and logs, and what is said. A message tells about a key only to who has its secret.
_SAID: Final[dict[Kind, tuple[int, str, str]]] = {
    "missing": (401, "missing_api_key", "No API key was sent: put it into 'Authorization: Bearer …' or 'x-api-key'."),
    "foreign": (401, "invalid_api_key", "The credential is not an API key of this server: those begin with 'ep-'."),
    "malformed": (401, "invalid_api_key", "The API key is mistyped or cut off: its checksum does not fit."),
    "unknown": (401, "invalid_api_key", "The API key is not known here."),
    "mixed": (401, "invalid_api_key", "The request carries two different API keys: send one."),
    "revoked": (401, "revoked_api_key", "The API key ep-{id} was revoked."),
    "expired": (401, "expired_api_key", "The API key ep-{id} has expired."),
    "rotated": (401, "rotated_api_key", "The API key ep-{id} was rotated, and this secret of it has ended: use the new one."),
    "elsewhere": (403, "api_key_not_allowed_here", "The API key ep-{id} may not be used from here."),
    "model": (403, "model_not_allowed", "The API key ep-{id} may not use this model."),
    "no_model": (403, "model_not_allowed", "The API key ep-{id} is for certain models; the request names none that can be read."),
}
_CHALLENGE: Final[Headers] = [(b"www-authenticate", b'Bearer realm="edgeproxy"')]  # RFC 9110 §15.5.2: a 401 has one


class KeyProblem:
    """Why a request is refused on account of its key. It names no secret.

    Attributes:
        kind: for metrics and logs.
        key: whose secret was right; None where none was.
        key_id: of the key that was meant, if it is one of ours; "" otherwise.
        fault: the answer: 401 or 403, in each dialect's words, with its header fields.
    """

    __slots__ = ("fault", "key", "key_id", "kind")

    def __init__(self, kind: Kind, key: Key | None = None, key_id: str = "") -> None:
        status, reason, message = _SAID[kind]
        self.kind = kind
        self.key = key
        self.key_id = key.id if key is not None else key_id
        self.fault: Fault = client_fault(status, reason, message.format(id=self.key_id))
        self.fault.fields = _CHALLENGE if status == 401 else []

    def __repr__(self) -> str:
        return f"KeyProblem({self.kind}, {self.key_id or '-'})"


# Those that tell of no key are made once: a flood of wrong keys makes nothing.
_NOBODYS: Final[dict[Kind, KeyProblem]] = {
    kind: KeyProblem(kind) for kind in ("missing", "foreign", "malformed", "unknown", "mixed")
}


class Key:
    """One secret of a key of the edge; a rotated key has two for a while, alike but for these:

    Attributes:
        digest: hash of the text.
        ends: seconds since the epoch from which it is refused.
        old: it is the secret from before a rotation.
        model: everything that the file says.
        id, name, tags, limits: of it.
        tokens_per_day, tokens_per_month: its budget; None: there is none.
        restricted: only certain models may be used with it.
    """

    __slots__ = (
        "_exact", "_ja4", "_ja4_families", "_networks", "_prefixes", "digest", "ends", "id", "limits", "model", "name", "old",
        "restricted", "tags", "tokens_per_day", "tokens_per_month",
    )  # fmt: skip

    def __init__(self, model: KeyModel, previous: Previous | None = None) -> None:
        """Compile the present secret, or the previous one."""
        self.model = model
        self.id = model.id
        self.name = model.name
        self.tags = model.tags
        self.limits = model.limits
        self.tokens_per_day = model.budget.tokens_per_day
        self.tokens_per_month = model.budget.tokens_per_month
        self.digest = bytes.fromhex((previous or model).hash.removeprefix(HASH))
        self.old = previous is not None
        until = previous.until if previous is not None else None
        ends = [each for each in (model.expires, until) if each is not None]
        # Whatever time stands there: a clock that is ahead where a key was revoked must not keep it alive.
        self.ends = -math.inf if model.revoked is not None else min(ends, default=math.inf)
        self.restricted = bool(model.models)
        self._exact = frozenset(name for name in model.models if not name.endswith("*"))
        self._prefixes = tuple(name[:-1] for name in model.models if name.endswith("*"))
        ranges = [parse_range(str(network)) for network in model.networks]
        self._networks = Ranges(each for each in ranges if not isinstance(each, str)) if ranges else None
        self._ja4 = frozenset(model.ja4)
        self._ja4_families = tuple(each + "_" for each in model.ja4)

    def __repr__(self) -> str:
        return f"Key(ep-{self.id}, {self.name})"

    def over(self, now: float) -> KeyProblem | None:
        """Why it is refused at a time (seconds since the epoch), None while it is good."""
        if now < self.ends:
            return None
        model = self.model
        if model.revoked is not None:
            return KeyProblem("revoked", self)
        return KeyProblem("expired" if model.expires is not None and now >= model.expires else "rotated", self)

    def elsewhere(self, address: str, ja4: str | None = None) -> KeyProblem | None:
        """Whether it is bound to other places.

        Args:
            address: of the client; "" on a Unix socket, which is in no network.
            ja4: the client's fingerprint; None: it is not known, and nobody is refused for it.
        """
        if self._networks is not None and client_code(address) not in self._networks:
            return KeyProblem("elsewhere", self)
        if self._ja4 and ja4 is not None and ja4 not in self._ja4 and not ja4.startswith(self._ja4_families):
            return KeyProblem("elsewhere", self)
        return None

    def allows(self, model: str) -> bool:
        """Whether a model may be used with it."""
        return not self.restricted or model in self._exact or model.startswith(self._prefixes)

    def model_problem(self, model: str | None) -> KeyProblem | None:
        """Whether a request with a body is refused for its model.

        Args:
            model: that the body names; None: none could be read, which a key for certain models is refused for.
        """
        if not self.restricted or (model is not None and self.allows(model)):
            return None
        return KeyProblem("no_model" if model is None else "model", self)


class KeyRing:
    """Every key of a snapshot.

    Attributes:
        keys: by id, the present secret of each.
    """

    __slots__ = ("_by_id", "_guessed", "_seed", "keys")

    def __init__(self, book: KeyBook) -> None:
        """Compile; the pepper is kept here and shown nowhere."""
        derived = bytes.fromhex(book.pepper.reveal().decode("ascii"))
        # A keyed hash begins with a block made of the key: it is computed once, and copied for each text.
        self._seed = blake2b(digest_size=DIGEST, key=derived, person=PERSON)
        self._by_id: dict[bytes, tuple[Key, ...]] = {}
        self._guessed: dict[str, KeyProblem] = {}  # at most one for each key
        self.keys: dict[str, Key] = {}
        for model in book.keys:
            key = Key(model)
            both = (key,) if model.previous is None else (key, Key(model, model.previous))
            self._by_id[model.id.encode("ascii")] = both
            self.keys[model.id] = key

    def __repr__(self) -> str:
        return f"KeyRing({len(self.keys)} keys)"

    def identify(self, headers: Headers, now: float) -> Key | KeyProblem | None:
        """Who a request comes from.

        Args:
            now: seconds since the epoch.

        Returns: None when it carries no credential at all.
        """
        text: bytes | None = None
        other = False
        for name, value in headers:
            if name in CARRIERS:
                if name == b"authorization" and value[:7].lower() == b"bearer ":
                    value = value[7:].strip(b" \t")  # noqa: PLW2901  the field's own part of it
                if value[:3] != PREFIX:
                    other = other or value != b""
                elif text is None:
                    text = value
                elif value != text:
                    return _NOBODYS["mixed"]
        if text is None:
            return _NOBODYS["foreign"] if other else None
        return self.recognise(text, now)

    def recognise(self, text: bytes, now: float) -> Key | KeyProblem:
        """The key of a text."""
        found = self._by_id.get(text[ID]) if len(text) == LENGTH else None
        if found is not None:
            hashing = self._seed.copy()
            hashing.update(text)
            digest = hashing.digest()
            for key in found:
                if compare_digest(key.digest, digest):
                    return key if now < key.ends else key.over(now) or key
        kind = wrong(text)
        if kind is not None or found is None:
            return _NOBODYS[kind or "unknown"]
        key_id = found[0].id  # somebody knows an id, and not its secret
        problem = self._guessed.get(key_id)
        if problem is None:
            problem = self._guessed[key_id] = KeyProblem("unknown", key_id=key_id)
        return problem


def refused(found: Key | KeyProblem | None, demand: RouteKeys) -> KeyProblem | None:
    """Whether a route lets a request pass, by what `identify` found.

    Where a key is optional, somebody else's credential is none of our business, and a wrong key of ours is.
    """
    if demand == "off" or isinstance(found, Key):
        return None
    if found is None:
        return _NOBODYS["missing"] if demand == "required" else None
    return found if demand == "required" or found.kind != "foreign" else None
