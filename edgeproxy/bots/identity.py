# Whether a declared bot is who it says: by its signature, its address, or its host's name. Never a reason to refuse anybody, and
# never waited for: what is not known yet is unverified.
"""`Identity.of(request, client, now)`: one exchange's answer. To be asked once an exchange: it counts nonces. Who asks others
whether a nonce was spent (spending.py) takes `examine` instead, and `unproven` for a nonce that was.

What has to be fetched or asked leaves through `Names` and `Keyring`, which only take notes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, NamedTuple

from edgeproxy.bots import signature
from edgeproxy.bots.catalogue import Bot, Catalogue
from edgeproxy.bots.keys import Key, Keyring, origin
from edgeproxy.bots.names import Names, ends_with
from edgeproxy.bots.ranges import Published
from edgeproxy.bots.signature import Refusal, Signed, joined
from edgeproxy.message import Request
from edgeproxy.rules.addresses import client_code

How = Literal["", "signature", "range", "dns"]
MAX_READ: Final = 256  # signatures that were read and are remembered
MAX_VERIFIED: Final = 2048  # and that were verified
MAX_NONCES: Final = 32_768
MAX_REMEMBERED: Final = 2048  # bytes of the fields of one that is remembered

Spend = Callable[[bytes, float, float], bool]
"""(key of 16 bytes, when it may be forgotten, now) → False if it was spent before."""


class Verified(NamedTuple):
    """Who sent a request.

    Attributes:
        bot: who it is. None: nobody that is verified.
        verified: `cf.bot_management.verified_bot` and `cf.client.bot`.
        how: by what.
        pending: an answer may come later; until then it is unverified, which must count for nothing.
        claimed: whom its User-Agent names, or whose signature it claims to be.
        failed: every way by which `claimed` can prove itself was tried, answered, and said no: somebody else uses its name.
        signed: `cf.bot_management.signed_agent`: a signature was verified.
        agent: origin of the key directory of that signature.
        refusal: why a signature proves nothing, for `explain`.
    """

    bot: Bot | None
    verified: bool
    how: How
    pending: bool
    claimed: Bot | None
    failed: bool
    signed: bool
    agent: str
    refusal: Refusal

    @property
    def category(self) -> str:
        """`cf.verified_bot_category`; "" for nobody that is verified."""
        return self.bot.category if self.bot is not None else ""


NOBODY: Final = Verified(None, False, "", False, None, False, False, "", "")


class Nonce(NamedTuple):
    """What a signature that is right counts once by.

    Attributes:
        key: 16 bytes, the same in all processes.
        expires: seconds since the epoch; from then on the signature is no good anyway.
    """

    key: bytes
    expires: float


class Nonces:
    """Nonces that were spent, in this worker alone; of more than MAX_NONCES the oldest are forgotten."""

    __slots__ = ("_spent",)

    def __init__(self) -> None:
        self._spent: dict[bytes, float] = {}

    def __call__(self, key: bytes, until: float, now: float) -> bool:
        spent = self._spent
        known = spent.get(key)
        if known is not None and now < known:
            return False
        spent.pop(key, None)
        if len(spent) >= MAX_NONCES:
            del spent[next(iter(spent))]
        spent[key] = until
        return True


def agents_of(catalogue: Catalogue, allowed: Iterable[str]) -> dict[str, Bot]:
    """The agents whose signatures are looked at: those of the catalogue, and others that the configuration allows.

    Raises ValueError for what is not the origin of a directory.
    """
    found = dict(catalogue.agents)
    for text in allowed:
        agent = origin(text)
        if agent is None:
            raise ValueError(f"'{text}' is not an agent: write its origin, like https://agent.example")
        host = agent.removeprefix("https://")
        found.setdefault(agent, Bot(host, host, "Other", agents=(agent,)))
    return found


class Identity:
    """See the module; one of a snapshot. What it remembers is bounded and goes with it."""

    __slots__ = ("_agents", "_catalogue", "_keyring", "_names", "_published", "_read", "_spend", "_verified")

    def __init__(
        self,
        catalogue: Catalogue,
        agents: dict[str, Bot],
        published: Published,
        names: Names | None,
        keyring: Keyring | None,
        spend: Spend | None = None,
    ) -> None:
        """Decide.

        Args:
            agents: as `agents_of` makes them.
            names, keyring: None: nobody is verified that way.
            spend: for nonces that count once; None: a signature is good until it expires, as the draft has it.
        """
        self._catalogue = catalogue
        self._agents = agents
        self._published = published
        self._names = names
        self._keyring = keyring
        self._spend = spend
        self._read: dict[tuple[bytes, bytes, bytes | None], Signed | Refusal] = {}
        self._verified: dict[tuple[bytes, bytes, str], bool] = {}

    def with_published(self, published: Published) -> Identity:
        """The same with other networks. What is known of signatures is shared."""
        made = Identity.__new__(Identity)
        for name in Identity.__slots__:
            setattr(made, name, getattr(self, name))
        made._published = published
        return made

    def of(self, request: Request, client: str, now: float) -> Verified:
        """Who sent a request, as far as this worker alone can tell.

        Args:
            request: as it came, before any rule changed it.
            client: textual address that rules call ip.src; "" on a Unix socket.
            now: seconds since the epoch.
        """
        found, nonce = self.examine(request, client, now)
        if nonce is None or self.first(nonce, now):
            return found
        return self.unproven(found, request, client, now, "replayed")

    def examine(self, request: Request, client: str, now: float) -> tuple[Verified, Nonce | None]:
        """As `of`, but nothing is spent: with a nonce it is so only if that was not seen before."""
        user_agent: bytes | None = None
        signed = False
        for name, value in request.headers:
            if name == b"user-agent":
                user_agent = value if user_agent is None else user_agent
            elif name == b"signature-input":
                signed = True
        claimed = self._catalogue.claimed(user_agent) if user_agent else None
        if signed and self._keyring is not None:
            found, nonce = self._by_signature(request, claimed, self._keyring, now)
            if found.verified or claimed is None:
                return found, nonce
            return self._else(found, claimed, client, now), None
        return (NOBODY if claimed is None else self._by_address(claimed, client, now)), None

    def first(self, nonce: Nonce, now: float) -> bool:
        """Spends a nonce in this worker; whether it was not yet."""
        return self._spend is None or self._spend(nonce.key, nonce.expires, now)

    def unproven(
        self, found: Verified, request: Request, client: str, now: float, refusal: Refusal, *, pending: bool = False
    ) -> Verified:
        """What is left of an answer whose signature proves nothing (yet: `pending`)."""
        found = NOBODY._replace(claimed=found.claimed, pending=pending, refusal=refusal)
        user_agent = request.header(b"user-agent")
        claimed = self._catalogue.claimed(user_agent) if user_agent else None
        return found if claimed is None else self._else(found, claimed, client, now)

    def _else(self, found: Verified, claimed: Bot, client: str, now: float) -> Verified:
        """Who names a bot and is not verified by its signature may still be by its address."""
        other = self._by_address(claimed, client, now)
        return other._replace(refusal=found.refusal, pending=other.pending or (found.pending and not other.verified))

    def _by_address(self, claimed: Bot, client: str, now: float) -> Verified:
        code = client_code(client) if claimed.ranges or claimed.dns else None
        if code is None:
            return NOBODY._replace(claimed=claimed)
        if self._published.covers(claimed.ranges, code):
            return Verified(claimed, True, "range", False, claimed, False, False, "", "")
        known: tuple[str, ...] | None = ()
        if claimed.dns and self._names is not None:
            known = self._names.of(code, now)
            if known and any(ends_with(name, claimed.dns) for name in known):
                return Verified(claimed, True, "dns", False, claimed, False, False, "", "")
        asked = self._published.known(claimed.ranges) and (not claimed.dns or self._names is not None)
        # An agent that could have signed and did not may still be it.
        failed = asked and known is not None and not claimed.agents
        return Verified(None, False, "", known is None, claimed, failed, False, "", "")

    # Signatures

    def _by_signature(
        self, request: Request, claimed: Bot | None, keyring: Keyring, now: float
    ) -> tuple[Verified, Nonce | None]:
        signed = self._signature(request)
        if isinstance(signed, str):
            return NOBODY._replace(claimed=claimed, refusal=signed), None
        bot = self._agents.get(signed.agent)
        if bot is None or signed.agent not in keyring:
            return NOBODY._replace(claimed=claimed, refusal="agent not allowed" if signed.agent else "covers no agent"), None
        claimed = claimed or bot
        if signed.created > now:
            return NOBODY._replace(claimed=claimed, refusal="from the future"), None
        if now >= signed.expires:
            return NOBODY._replace(claimed=claimed, refusal="expired"), None
        key, pending = keyring.find(signed.agent, signed.keyid, now)
        if key is None:
            return NOBODY._replace(claimed=claimed, pending=pending, refusal="no key" if pending else "key unknown"), None
        refusal = self._proof(signed, request, key)
        if refusal:
            return NOBODY._replace(claimed=claimed, refusal=refusal), None
        nonce = None
        if self._spend is not None and signed.nonce:
            # Only of a right signature: else anybody could spend the nonces of others.
            spent = "\n".join((signed.agent, signed.keyid, signed.nonce)).encode()
            nonce = Nonce(hashlib.blake2b(spent, digest_size=16, person=b"edge nonces").digest(), signed.expires)
        return Verified(bot, True, "signature", False, claimed, False, True, signed.agent, ""), nonce

    def _signature(self, request: Request) -> Signed | Refusal:
        inputs, signatures = joined(request, b"signature-input") or b"", joined(request, b"signature")
        agents = joined(request, b"signature-agent")
        if signatures is None:
            return "no signature"
        fields = (inputs, signatures, agents)
        kept = self._read.get(fields)
        if kept is not None:
            return kept
        signed = signature.read(inputs, signatures, agents)
        if len(inputs) + len(signatures) + len(agents or b"") <= MAX_REMEMBERED:
            _bounded(self._read, MAX_READ)
            self._read[fields] = signed
        return signed

    def _proof(self, signed: Signed, request: Request, key: Key) -> Refusal:
        """Nothing if the signature is this key's, over this request."""
        if signed.algorithm and signed.algorithm != key.algorithm:
            return "algorithm"
        text = signature.base(signed, request)
        if text is None:
            return "component"
        # The name of a key is made from it, so that what one verified does not hold for another.
        entry = (hashlib.blake2b(text, digest_size=16).digest(), signed.signature, signed.keyid)
        right = self._verified.get(entry)
        if right is None:
            right = key.verifies(signed.signature, text)
            _bounded(self._verified, MAX_VERIFIED)
            self._verified[entry] = right
        return "" if right else "wrong"


def _bounded(kept: dict[Any, Any], most: int) -> None:
    """Room for one more."""
    if len(kept) >= most:
        del kept[next(iter(kept))]
