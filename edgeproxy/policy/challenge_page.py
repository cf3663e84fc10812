# How a challenge looks: the page for people, its words in two languages, and the fields that go with it. It decides nothing.
"""`page` makes the HTML of a challenge; `SCRIPT` is what runs on it, and what pages load whose own requests are challenged.

Nothing is loaded from anywhere: the page has its style and its script in it, and its policy (CSP) allows these two, by their
hashes, and no others.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import msgspec

from edgeproxy.policy.pages import wants_html

if TYPE_CHECKING:
    from edgeproxy.config.snapshot import Route
    from edgeproxy.message import Request

PAGE: Final = 403  # status of a page
SCRIPTED: Final = 401  # status of an answer for scripts

_H3: Final = 2  # index of observe.metrics.PROTOCOLS
_PREFLIGHT: Final = frozenset({b"origin", b"access-control-request-method"})
_NOT_WITH_ONE: Final = frozenset({b"authorization", b"cookie"})
MAX_RETURN: Final = 4096  # bytes of a target that people are sent back to

SCRIPT: Final = files("edgeproxy.assets").joinpath("challenge.js").read_bytes()
_STYLE: Final = files("edgeproxy.assets").joinpath("challenge.css").read_bytes()


def _digest(content: bytes) -> bytes:
    return b"'sha256-" + base64.b64encode(hashlib.sha256(content).digest()) + b"'"


FIELDS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src %b; style-src %b; worker-src blob:; connect-src 'self'; img-src data:; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'self'" % (_digest(SCRIPT), _digest(_STYLE)),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-robots-tag", b"noindex"),
    (b"referrer-policy", b"same-origin"),
)

_WORDS: Final[dict[str, dict[str, str]]] = {
    "en": {
        "title": "One moment, please",
        "why": "{host} is checking that a browser is calling and not a program. Your browser does a small sum for that; "
        "nothing is asked of you, and nobody else is told.",
        "why_press": "{host} is checking that somebody is here. Press the button; your browser then does a small sum.",
        "bar": "Progress of the check",
        "working": "Checking …",
        "passed": "Done. The page is being loaded.",
        "failed": "The check did not succeed.",
        "again": "Try again",
        "press": "Ready when you are.",
        "begin": "Begin",
        "resend": "Done. What you had sent was not kept: send it again. Your browser may ask whether you mean it.",
        "send": "Send it again",
        "loop": "The check succeeded, but your browser does not keep its result. This site has to be allowed to set cookies.",
        "cookies": "This check needs a cookie, and your browser does not accept cookies from this site.",
        "noscript": "Without JavaScript you can wait instead: {wait} seconds from now, press the button. What you get by it "
        "holds for a shorter time.",
        "noscript_not": "This check needs JavaScript. Please allow it for this site.",
        "early": "That was too early: please wait another {left} seconds, then press the button.",
        "lost": "Something that you sent with this request was not kept; you will have to send it again.",
        "go": "Continue",
    },
    "de": {
        "title": "Einen Augenblick, bitte",
        "why": "{host} prüft, ob ein Browser anfragt und kein Programm. Ihr Browser rechnet dafür eine kleine Aufgabe; Sie "
        "müssen nichts tun, und niemand sonst erfährt davon.",
        "why_press": "{host} prüft, ob jemand da ist. Drücken Sie den Knopf; Ihr Browser rechnet dann eine kleine Aufgabe.",
        "bar": "Fortschritt der Prüfung",
        "working": "Wird geprüft …",
        "passed": "Fertig. Die Seite wird geladen.",
        "failed": "Die Prüfung ist nicht gelungen.",
        "again": "Noch einmal",
        "press": "Wenn Sie so weit sind.",
        "begin": "Beginnen",
        "resend": "Fertig. Was Sie gesendet hatten, wurde nicht aufbewahrt: Senden Sie es noch einmal. Ihr Browser fragt "
        "vielleicht nach.",
        "send": "Noch einmal senden",
        "loop": "Die Prüfung ist gelungen, aber Ihr Browser merkt sich das nicht. Diese Seite muss Cookies setzen dürfen.",
        "cookies": "Diese Prüfung braucht ein Cookie, und Ihr Browser nimmt von dieser Seite keine an.",
        "noscript": "Ohne JavaScript können Sie stattdessen warten: Drücken Sie in {wait} Sekunden den Knopf. Was Sie damit "
        "bekommen, gilt kürzer.",
        "noscript_not": "Diese Prüfung braucht JavaScript. Bitte erlauben Sie es für diese Seite.",
        "early": "Das war zu früh: Bitte warten Sie noch {left} Sekunden, und drücken Sie dann den Knopf.",
        "lost": "Was Sie mit dieser Anfrage gesendet haben, wurde nicht aufbewahrt; Sie müssen es noch einmal senden.",
        "go": "Weiter",
    },
}
_OF_SCRIPT: Final = ("working", "passed", "failed", "again", "press", "begin", "resend", "send", "loop", "cookies")
_SCRIPT_WORDS: Final = {
    language: html.escape(msgspec.json.encode({key: words[key] for key in _OF_SCRIPT}).decode())
    for language, words in _WORDS.items()
}  # fmt: skip
_RANGE: Final = re.compile(rb"\s*([A-Za-z]{1,8})(?:-[A-Za-z0-9-]*)?\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?)\s*)?")
_LOCAL: Final = re.compile(r"/(?![/\\])[\x21-\x7e]*")


def is_navigation(request: Request, route: Route | None) -> bool:
    """Whether somebody looks at what comes back: a browser that loads a page, or a client that wants HTML."""
    if route is not None and route.dialect is not None:
        return False
    return wants_html(request.header(b"accept")) and request.header(b"sec-fetch-mode") in {None, b"navigate", b"nested-navigate"}


def asks_first(request: Request) -> bool:
    """A preflight (Fetch standard §3.2.2): a browser sends no cookie, credentials or content with it and shows its answer to
    nobody, so that it can pass no challenge. What it asks for comes later."""
    if request.method != b"OPTIONS" or request.length or (request.length is None and request.protocol != _H3):
        return False  # over QUIC the end of a stream may come behind its head
    names = {name for name, _ in request.headers}
    return names.issuperset(_PREFLIGHT) and names.isdisjoint(_NOT_WITH_ONE)


def language(accept: bytes | None) -> str:
    """The language of ours that somebody likes most (RFC 9110 §12.5.4), else English."""
    best, found = 0.0, "en"
    for part in (accept or b"")[:256].split(b",")[:16]:
        match = _RANGE.fullmatch(part)
        if match is not None and match[1].lower().decode() in _WORDS:
            weight = float(match[2]) if match[2] is not None else 1.0
            if weight > best:
                best, found = weight, match[1].lower().decode()
    return found


def local(target: str) -> str:
    """A path on this host that somebody may be sent back to; "/" for anything else."""
    return target if len(target) <= MAX_RETURN and _LOCAL.fullmatch(target) is not None and "\\" not in target else "/"


def page(
    challenge: dict[str, str | int], accept: bytes | None, *, host: str, target: str, ray: str, wait: int, press: bool,
    sent: bool, left: int = 0,
) -> bytes:  # fmt: skip
    """The page.

    Args:
        challenge: what the script is given.
        accept: value of the Accept-Language field.
        target: where the request went to.
        wait: seconds for those without JavaScript; 0: they cannot pass.
        press: nothing begins before a button is pressed.
        sent: the request was none that a browser just makes again.
        left: seconds that somebody without JavaScript came too early.
    """
    spoken = language(accept)
    words = _WORDS[spoken]
    why = words["why_press" if press else "why"].format(host=f"<b>{html.escape(host)}</b>")
    options = (' data-press="1"' if press else "") + (' data-sent="1"' if sent else "")
    shown = html.escape(msgspec.json.encode(challenge).decode())
    without = _without(words, challenge, target, wait, left, sent)
    text = (
        f'<!doctype html><html lang="{spoken}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex">'
        f'<link rel="icon" href="data:,"><title>{words["title"]}</title><style>{_STYLE.decode()}</style></head><body>'
        f'<main id="edge-challenge" data-challenge="{shown}" data-text="{_SCRIPT_WORDS[spoken]}"{options}>'
        f'<h1>{words["title"]}</h1><p>{why}</p><p id="status" role="status"></p>'
        f'<progress id="bar" max="1" value="0" aria-label="{words["bar"]}" hidden></progress>'
        f'<button id="go" type="button" hidden></button><noscript><div class="box">{without}</div></noscript>'
        f"<p><small>Ray {html.escape(ray)}</small></p></main>"
    )
    return text.encode("utf-8") + b"<script>" + SCRIPT + b"</script></body></html>\n"


def _without(words: dict[str, str], challenge: dict[str, str | int], target: str, wait: int, left: int, sent: bool) -> str:
    """What is there for those without JavaScript."""
    if not wait:
        return f"<p>{words['noscript_not']}</p>"
    said = words["early"].format(left=left) if left else words["noscript"].format(wait=wait)
    lost = f"<p>{words['lost']}</p>" if sent else ""
    return (
        f'<p>{said}</p>{lost}<form method="post" action="{html.escape(str(challenge["path"]))}">'
        f'<input type="hidden" name="token" value="{html.escape(str(challenge["token"]))}">'
        f'<input type="hidden" name="to" value="{html.escape(local(target))}"><button>{words["go"]}</button></form>'
    )
