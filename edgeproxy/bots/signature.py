# Signatures of requests as Web Bot Auth uses them (RFC 9421, draft-ietf-webbotauth-httpsig-protocol). What a signature proves
# is decided here; where its key comes from is not.
"""`read(…)`: the signature of a request that is tagged `web-bot-auth`; `base(signed, request)`: the bytes that were signed.

Nothing raises for what a client sends. Reasons are short words that `explain` shows.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple, TypeGuard
from urllib.parse import parse_qsl, quote

from edgeproxy.bots.fields import Inner, Item, Token, dictionary, item
from edgeproxy.bots.keys import origin
from edgeproxy.message import Request

TAG: Final = "web-bot-auth"
LONGEST: Final = 86400  # seconds between created and expires
ALGORITHMS: Final = frozenset({"ed25519", "rsa-pss-sha512"})  # asymmetric ones only: HMAC would need a shared secret
MAX_SIGNATURE: Final = 512  # bytes; RSA of 4096 bits
MAX_PARSED: Final = 6  # components with parameters; usual is one
_MAX_BASE: Final = 32 << 10
_MAX_QUERY: Final = 4096  # bytes of a query that is looked into
_ASCII: Final = re.compile(rb"[\x20-\x7e\t]*")
_NAME: Final = re.compile(r"@?[a-z0-9!#$%&'*+\-.^_`|~]+")

Refusal = Literal[
    "", "malformed", "no signature", "no times", "expired", "from the future", "lives too long", "no key id", "algorithm",
    "covers no authority", "covers no agent", "agent", "component", "no key", "key unknown", "agent not allowed", "wrong",
    "replayed", "undecided",
]  # fmt: skip


class Signed(NamedTuple):
    """A signature as it was sent; nothing of it is verified.

    Attributes:
        label: in the fields.
        agent: origin of the key directory, "" where the request names none.
        keyid: thumbprint of the key.
        algorithm: "" where it is not said.
        created, expires: seconds since the epoch.
        nonce: "" for none.
        covered: what was signed.
        parameters: the last line of what was signed, as it was sent.
        signature: bytes.
    """

    label: str
    agent: str
    keyid: str
    algorithm: str
    created: int
    expires: int
    nonce: str
    covered: tuple[Item, ...]
    parameters: str
    signature: bytes


def read(inputs: bytes, signatures: bytes, agents: bytes | None) -> Signed | Refusal:
    """The first signature that is tagged as a bot's; "" if none is, else why it is no good.

    Args:
        inputs, signatures, agents: Signature-Input, Signature and Signature-Agent, their lines joined by `, `.
    """
    members = dictionary(inputs)
    if members is None:
        return "malformed"
    for label, member in members.items():
        if isinstance(member, Inner) and member.parameters.get("tag") == TAG:
            return _signed(label, member, signatures, agents)
    return ""


def _signed(label: str, member: Inner, signatures: bytes, agents: bytes | None) -> Signed | Refusal:
    values = dictionary(signatures)
    value = values.get(label) if values is not None else None
    if not isinstance(value, Item) or not isinstance(value.value, bytes) or not 0 < len(value.value) <= MAX_SIGNATURE:
        return "no signature"
    parameters = member.parameters
    created, expires = parameters.get("created"), parameters.get("expires")
    if type(created) is not int or type(expires) is not int:  # not a boolean, which is an int to Python
        return "no times"
    if expires - created > LONGEST or expires <= created:
        return "lives too long" if expires > created else "expired"
    keyid, nonce, algorithm = parameters.get("keyid"), parameters.get("nonce", ""), parameters.get("alg", "")
    if not _is_string(keyid) or not 0 < len(keyid) <= 128:
        return "no key id"
    if not _is_string(nonce) or not _is_string(algorithm):
        return "malformed"
    if algorithm and algorithm not in ALGORITHMS:
        return "algorithm"
    refused = _coverage(member.items)
    if refused:
        return refused
    agent = ""
    if agents is not None:
        found = _agent(label, member.items, agents)
        if found is None:
            return "covers no agent"
        agent = origin(found) or ""
        if not agent:
            return "agent"
    return Signed(label, agent, keyid, algorithm, created, expires, nonce, member.items, member.text, value.value)


def _is_string(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and not isinstance(value, Token)


def _coverage(items: tuple[Item, ...]) -> Refusal:
    """Whether the components name a request, each once (RFC 9421 §2.5)."""
    seen: set[str] = set()
    bound = False
    for each in items:
        if not _is_string(each.value) or _NAME.fullmatch(str(each.value)) is None or each.text in seen:
            return "component"
        seen.add(each.text)
        bound = bound or (each.value in ("@authority", "@target-uri") and not each.parameters)
    return "" if bound else "covers no authority"


def _agent(label: str, items: tuple[Item, ...], agents: bytes) -> str | None:
    """The URL of the agent that the signature covers, None if it covers none of those that the request names.

    Three forms: a dictionary, whose member is covered by its key (its label's, if several are); a string; and a bare URL,
    which is no structured field but is sent. The latter two, and a dictionary of one, may be covered as a whole.
    """
    covered = [each.parameters for each in items if each.value == "signature-agent"]
    whole = {} in covered
    keys = [each["key"] for each in covered if isinstance(each.get("key"), str)]
    if agents.startswith(b'"'):
        alone = item(agents)
        return str(alone.value) if whole and alone is not None and _is_string(alone.value) else None
    members = dictionary(agents)
    if members is None:
        return agents.decode("ascii", "replace") if whole and agents.startswith(b"https://") else None
    if not keys and whole and len(members) == 1:
        keys = list(members)
    member = members.get(label if label in keys else str(keys[0]) if len(keys) == 1 else "")
    if not isinstance(member, Item) or not _is_string(member.value):
        return None
    if member.parameters.get("type", "directory") != "directory":
        return None  # other ways of finding keys are not supported
    return str(member.value)


def base(signed: Signed, request: Request) -> bytes | None:
    """What was signed (RFC 9421 §2.5), None where it covers what the request does not have or what is not understood."""
    lines: list[str] = []
    size = 0
    # With parameters a component may need a whole field or query parsed.
    if sum(bool(each.parameters) for each in signed.covered) > MAX_PARSED:
        return None
    for each in signed.covered:
        name = str(each.value)
        value = _derived(name, each, request) if name.startswith("@") else _field(name, each, request)
        if value is None:
            return None
        line = f"{each.text}: {value}"
        size += len(line)
        if size > _MAX_BASE:
            return None
        lines.append(line)
    lines.append(f'"@signature-params": {signed.parameters}')
    return "\n".join(lines).encode("latin-1")


def authority(request: Request) -> str:
    """RFC 9421 §2.2.3: lower case, without the port that its scheme has anyway."""
    text = request.authority.decode("latin-1").lower()
    return text.removesuffix(":443" if request.peer.secure else ":80")


def _derived(name: str, each: Item, request: Request) -> str | None:
    if name == "@query-param":
        return _query_parameter(each, request)
    if each.parameters:
        return None
    target = request.target.decode("latin-1")
    path, _, query = target.partition("?")
    scheme = "https" if request.peer.secure else "http"
    match name:
        case "@authority":
            return authority(request)
        case "@target-uri":
            return f"{scheme}://{authority(request)}{target}"
        case "@method":
            return request.method.decode("latin-1")
        case "@path":
            return path or "/"
        case "@query":
            return f"?{query}"
        case "@scheme":
            return scheme
        case "@request-target":
            return target
    return None


def _query_parameter(each: Item, request: Request) -> str | None:
    """RFC 9421 §2.2.8: one that is there exactly once."""
    wanted = each.parameters.get("name")
    if not isinstance(wanted, str) or len(each.parameters) != 1:
        return None
    query = request.target.partition(b"?")[2].decode("latin-1")
    if len(query) > _MAX_QUERY:
        return None
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=64)
    except ValueError:
        return None
    found = [value for name, value in pairs if _encoded(name) == wanted]
    return _encoded(found[0]) if len(found) == 1 else None


def _encoded(text: str) -> str:
    """The URL standard's application/x-www-form-urlencoded set, with %20 for a space."""
    return quote(text, safe="*").replace("~", "%7E")


def _field(name: str, each: Item, request: Request) -> str | None:
    """A field's lines joined, or a member of a dictionary (RFC 9421 §2.1)."""
    wanted = name.encode()
    if name == "host":
        return authority(request) if not each.parameters else None
    value = joined(request, wanted)
    if value is None or _ASCII.fullmatch(value) is None:
        return None
    if not each.parameters:
        return value.decode("ascii")
    key = each.parameters.get("key")
    if len(each.parameters) != 1 or not isinstance(key, str):
        return None
    members = dictionary(value)
    member = members.get(key) if members is not None else None
    return None if member is None else member.text


def joined(request: Request, name: bytes) -> bytes | None:
    """All lines of a field as one, None where it is absent."""
    found = [value.strip(b" \t") for key, value in request.headers if key == name]
    return None if not found else found[0] if len(found) == 1 else b", ".join(found)
