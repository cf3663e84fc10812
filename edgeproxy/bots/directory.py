# Whether a key directory is the one its origin meant: its own signatures, by the keys that it carries. Nothing is fetched here.
"""`proven(keys, …)`: the keys of a directory that may be used (draft-meunier-webbotauth-httpsig-directory, "Binding keys").

A directory may be signed, once by each of its keys, over the host it was asked of: then a key without a right signature was
put there by somebody who does not have it. One that is not signed at all is as good as the TLS connection it came by.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from edgeproxy.bots.fields import Inner, Item, dictionary
from edgeproxy.bots.keys import Key

TAG: Final = "http-message-signatures-directory"
_DIGESTS: Final = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}


def proven(keys: Mapping[str, Key], headers: Mapping[str, str], body: bytes, authority: str, now: float) -> dict[str, Key]:
    """The keys that may be used.

    Args:
        keys: as `read_directory` gives them.
        headers: of the answer, by name in lower case; lines of one name joined by `, `.
        authority: that the directory was asked of: host, and port if it is not 443.
    """
    inputs = dictionary(headers.get("signature-input", "").encode("latin-1", "replace"))
    values = dictionary(headers.get("signature", "").encode("latin-1", "replace"))
    if inputs is None or values is None:
        return {}  # signed, by somebody who cannot
    tagged = [
        (label, member)
        for label, member in inputs.items()
        if isinstance(member, Inner) and member.parameters.get("tag") == TAG
    ]
    if not tagged:
        return dict(keys)
    found: dict[str, Key] = {}
    for label, member in tagged:
        value = values.get(label)
        keyid = member.parameters.get("keyid")
        key = keys.get(keyid) if isinstance(keyid, str) else None
        if key is None or not isinstance(value, Item) or not isinstance(value.value, bytes):
            continue
        text = _base(member, headers, body, authority, now)
        if text is not None and key.verifies(value.value, text):
            found[str(keyid)] = key
    return found


def _base(member: Inner, headers: Mapping[str, str], body: bytes, authority: str, now: float) -> bytes | None:
    """What was signed; None for a signature that does not hold now, or says nothing of the host."""
    created, expires = member.parameters.get("created"), member.parameters.get("expires")
    if type(created) is not int or type(expires) is not int or not created <= now < expires:
        return None
    lines: list[str] = []
    bound = False
    for each in member.items:
        if each.value == "@authority" and each.parameters == {"req": True}:
            value: str | None = authority
            bound = True
        elif each.parameters or str(each.value).startswith("@"):
            return None
        else:
            value = headers.get(str(each.value))
        if value is None or (each.value == "content-digest" and not digest_holds(value, body)):
            return None
        lines.append(f"{each.text}: {value.strip()}")
    if not bound:
        return None
    return "\n".join([*lines, f'"@signature-params": {member.text}']).encode("latin-1", "replace")


def digest_holds(field: str, body: bytes) -> bool:
    """Content-Digest (RFC 9530): whether one of the hashes that are known is there and all of them are the body's."""
    members = dictionary(field.encode("latin-1", "replace")) or {}
    known = [(_DIGESTS[name], member) for name, member in members.items() if name in _DIGESTS]
    return bool(known) and all(
        isinstance(member, Item) and isinstance(member.value, bytes) and hmac.compare_digest(made(body).digest(), member.value)
        for made, member in known
    )
