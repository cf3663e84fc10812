# The human side of training: what real browsers send, put together from parts that were each measured on real ones.
"""`humans`: synthesised connections and requests of browsers, for training and evaluation.

Parts: TLS and HTTP/2 of `../shared/data/browser-signatures` (real browsers) and of the Chromium and Firefox that were captured
here; User-Agents and client hints by browser, version and system with their real frequencies from apify-fingerprint-datapoints;
orders and kinds of requests from the captured browsers (Safari's from its signatures). A combination is of one family and
version, or of the nearest version that there is a signature of; nobody has seen it as a whole. The model card says so.
"""

from __future__ import annotations

import json
import os
import random
import re
import zipfile
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from edgeproxy.bots.agents import CHROMIUM, FIREFOX, SAFARI, read_agent
from edgeproxy.listen.hello import Hello
from edgeproxy.prints import H2Print, Prints
from tools.bots.samples import HOST, Sample

SHARED = Path(os.environ.get("EDGEPROXY_SHARED", Path(__file__).parents[3] / "shared/data"))
SIGNATURES = SHARED / "browser-signatures"
COLLECTED: Final = (1_776_600_000, 1_780_600_000)  # seconds since 1970 between which apify's data was collected, by its versions
_WEEK: Final = 604_800
_TYPES: Final = {
    "server_name": 0x00, "status_request": 0x05, "supported_groups": 0x0A, "ec_point_formats": 0x0B, "signature_algorithms": 0x0D,
    "application_layer_protocol_negotiation": 0x10, "signed_certificate_timestamp": 0x12, "padding": 0x15,
    "extended_master_secret": 0x17, "compress_certificate": 0x1B, "record_size_limit": 0x1C, "delegated_credentials": 0x22,
    "session_ticket": 0x23, "pre_shared_key": 0x29, "supported_versions": 0x2B, "psk_key_exchange_modes": 0x2D, "keyshare": 0x33,
    "application_settings": 0x4469, "application_settings_new": 0x44CD, "encrypted_client_hello": 0xFE0D, "renegotiation_info":
    0xFF01,
}  # fmt: skip
_VERSIONS: Final = {"TLS_VERSION_1_3": 0x0304, "TLS_VERSION_1_2": 0x0303, "TLS_VERSION_1_1": 0x0302, "TLS_VERSION_1_0": 0x0301}
_MLKEM: Final = 0x11EC
_NEAR: Final = 9  # majors; a signature of the other kind of device that is nearer is better than one that is further away
_LATE: Final = (0.25, 52 * _WEEK)  # share of people whose browser was not updated for up to so long
_SILENT: Final = 0.06  # share of people on sites, or with settings, that say no Referer
_FAMILIES: Final = {CHROMIUM: 0.55, SAFARI: 0.25, FIREFOX: 0.2}  # Firefox's real share is too small to learn it from
_MISSING: Final = "*MISSING_VALUE*"


class Signature(NamedTuple):
    """One real browser's way to begin: family, major, whether on a phone, and what it sent (GREASE as None)."""

    name: str
    family: int
    major: int
    phone: bool
    hello: dict[str, Any]
    h2: H2Print
    order: tuple[str, ...]  # of the header fields of a page


def signatures(folder: Path = SIGNATURES) -> list[Signature]:
    """All that say how their HTTP/2 begins; the older ones do not. Empty when the folder is not there."""
    found = []
    for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else ():
        data = yaml.safe_load(path.read_text())
        frames = data["signature"].get("http2", {}).get("frames", [])
        settings = next((f["settings"] for f in frames if f["frame_type"] == "SETTINGS"), None)
        if settings is None:
            continue
        window = next((f["window_size_increment"] for f in frames if f["frame_type"] == "WINDOW_UPDATE"), 0)
        head = next(f for f in frames if f["frame_type"] == "HEADERS")
        pseudo = ",".join(name[1] for name in head["pseudo_headers"])
        h2 = H2Print(tuple((s["key"], s["value"]) for s in settings), window, (), pseudo)
        name = data["browser"]["name"]
        family = {"chrome": CHROMIUM, "edge": CHROMIUM, "firefox": FIREFOX, "safari": SAFARI}[name]
        major = int(re.split(r"[._]", str(data["browser"]["version"]))[0])
        order = tuple(line.split(":")[0] for line in head["headers"])
        phone = "ndroid" in path.name or "iOS" in path.name
        hello = data["signature"]["tls_client_hello"] | (data["signature"].get("options") or {})
        found.append(Signature(path.stem, family, major, phone, hello, h2, order))
    return found


def hello_of(one: dict[str, Any], random_: random.Random, mlkem: bool = False) -> Hello:
    """A hello as that browser sends it, with fresh GREASE and a fresh permutation where it permutes.

    Args:
        mlkem: with the hybrid group in front that Safari sends since version 26.
    """
    grease = [0x0A0A + 0x1010 * random_.randrange(16) for _ in range(5)]
    extensions = list(one["extensions"])
    if one.get("tls_permute_extensions"):
        inner = [e for e in extensions if e["type"] != "GREASE" and e["type"] not in {"padding", "pre_shared_key"}]
        random_.shuffle(inner)
        rest = iter(inner)
        extensions = [e if e["type"] in {"GREASE", "padding", "pre_shared_key"} else next(rest) for e in extensions]
    by_type = {e["type"]: e for e in extensions}
    types, greased = [], iter(grease[3:] + grease[3:])
    for extension in extensions:
        types.append(next(greased) if extension["type"] == "GREASE" else _TYPES[extension["type"]])

    def numbers(kind: str, key: str, value: int) -> tuple[int, ...]:
        return tuple(value if x == "GREASE" else _VERSIONS.get(x, x) for x in by_type.get(kind, {}).get(key, ()))

    groups = numbers("supported_groups", "supported_groups", grease[1])
    shares = tuple(grease[1] if s["group"] == "GREASE" else s["group"] for s in by_type["keyshare"]["key_shares"])
    if mlkem and _MLKEM not in groups:
        groups, shares = (*groups[:1], _MLKEM, *groups[1:]), (*shares[:1], _MLKEM, *shares[1:])
    return Hello(
        version=0x0303,
        versions=numbers("supported_versions", "supported_versions", grease[2]),
        session=one["session_id_length"],
        ciphers=tuple(grease[0] if c == "GREASE" else c for c in one["ciphersuites"]),
        methods=bytes(one["comp_methods"]),
        extensions=tuple(types),
        sni=True,
        alpn=tuple(name.encode() for name in by_type["application_layer_protocol_negotiation"]["alpn_list"]),
        groups=groups,
        shares=shares,
        formats=numbers("ec_point_formats", "ec_point_formats", 0),
        sigalgs=numbers("signature_algorithms", "sig_hash_algs", 0),
        compressions=numbers("compress_certificate", "algorithms", 0),
        parameters=b"",
    )


# -- who asks: apify's networks ---------------------------------------------------------------------------------------


class Network:
    """A Bayesian network as apify stores them; nodes are in an order in which parents come first."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as packed:
            self.nodes = json.loads(packed.read("network.json"))["nodes"]

    def draw(self, random_: random.Random, known: dict[str, str]) -> dict[str, str]:
        """Values for all nodes; those that are known stay. Empty where the network knows no such combination."""
        values = dict(known)
        for node in self.nodes:
            if node["name"] in values:
                continue
            table = node["conditionalProbabilities"]
            for parent in node["parentNames"] if node.get("parentNames") else ():
                deeper = table.get("deeper", {})
                table = deeper[values[parent]] if values.get(parent) in deeper else table.get("skip", {})
            chances = {k: v for k, v in table.items() if isinstance(v, int | float)}
            if not chances:
                return {}
            values[node["name"]] = random_.choices(list(chances), weights=list(chances.values()))[0]
        return values


def people(count: int, random_: random.Random) -> list[dict[str, str]]:
    """Headers that say who asks, in the frequencies of real browsers. Raises ImportError without apify's package."""
    import apify_fingerprint_datapoints as apify

    first, second = Network(apify.get_input_network()), Network(apify.get_header_network())
    found: list[dict[str, str]] = []
    quotas = {family: round(share * count) for family, share in _FAMILIES.items()}
    while sum(quotas.values()) > 0:
        chosen = first.draw(random_, {})
        known = {name: chosen[name] for name in ("*BROWSER", "*OPERATING_SYSTEM", "*DEVICE", "*HTTP_VERSION") if name in chosen}
        drawn = second.draw(random_, known)
        headers = {name.lower(): value for name, value in drawn.items() if not name.startswith("*") and value != _MISSING}
        agent = read_agent(headers.get("user-agent", "").encode())
        if quotas.get(agent.family, 0) > 0 and agent.major:
            quotas[agent.family] -= 1
            found.append(headers)
    random_.shuffle(found)
    return found


# -- what they ask ----------------------------------------------------------------------------------------------------

_LOCALES: Final = (
    ("en-US", 45), ("en-GB", 8), ("de-DE", 8), ("fr-FR", 6), ("es-ES", 5), ("pt-BR", 5), ("ja-JP", 4), ("zh-CN", 4), ("ru-RU", 3),
    ("it-IT", 3), ("pl-PL", 2), ("nl-NL", 2), ("tr-TR", 2), ("ko-KR", 2), ("sv-SE", 1),
)  # fmt: skip


def language(family: int, major: int, random_: random.Random) -> bytes:
    """Accept-Language as the family writes it for a person of some country."""
    locale = random_.choices([name for name, _ in _LOCALES], weights=[weight for _, weight in _LOCALES])[0]
    short = locale.split("-")[0]
    if family == SAFARI:
        tags = [locale, short]
    elif family == FIREFOX:
        tags = [locale, "en"] if short == "en" else random_.choice([[short, "en-US", "en"], [locale, short, "en-US", "en"]])
    else:
        tags = [locale, short] if short == "en" else [locale, short, "en-US", "en"]
    if random_.random() < 0.08 and family != SAFARI:
        tags += ["fr", "es"] if short not in {"fr", "es"} else ["de"]
    if random_.random() < 0.05:
        tags = tags[:1]
    step = 0.5 if family == FIREFOX and len(tags) == 2 and major < 140 else 0.1
    words = [tags[0]] + [f"{tag};q={max(1 - (at + 1) * step, 0.1):.1f}" for at, tag in enumerate(tags[1:])]
    return ",".join(words).encode()


_WEBKIT_FETCH: Final = {
    b"accept": b"*/*", b"sec-fetch-site": b"same-origin", b"sec-fetch-mode": b"cors", b"sec-fetch-dest": b"empty",
    b"priority": b"u=3, i",
}  # fmt: skip
_WEBKIT_PAGE: Final = {
    b"accept": b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", b"sec-fetch-site": b"none",
    b"sec-fetch-mode": b"navigate", b"sec-fetch-dest": b"document", b"priority": b"u=0, i",
}  # fmt: skip


def webkit(
    order: tuple[str, ...], person: dict[str, str], tongue: bytes, random_: random.Random
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """A request of Safari: method and fields."""
    asks = random_.choices(["page", "link", "get", "post", "image"], weights=[30, 15, 20, 20, 15])[0]
    values = dict(_WEBKIT_PAGE if asks in {"page", "link"} else _WEBKIT_FETCH)
    if asks == "link":
        values[b"sec-fetch-site"] = random_.choice([b"same-origin", b"cross-site"])
    if asks == "image":
        values |= {
            b"sec-fetch-mode": b"no-cors",
            b"sec-fetch-dest": b"image",
            b"accept": b"image/webp,image/avif,image/*,*/*;q=0.5",
        }
    if asks in {"get", "post"} and random_.random() < 0.4:
        values[b"accept"] = random_.choice([b"application/json", b"text/event-stream", b"application/json, text/plain, */*"])
    values |= {b"user-agent": person["user-agent"].encode(), b"accept-language": tongue, b"accept-encoding": b"gzip, deflate, br"}
    fields = [(name.encode(), values[name.encode()]) for name in order if name.encode() in values]
    if asks != "page":
        fields.insert(random_.randrange(1, len(fields)), (b"referer", b"https://" + HOST + b"/"))
    if asks == "post":
        fields.insert(random_.randrange(1, len(fields)), (b"origin", b"https://" + HOST))
        fields.insert(random_.randrange(1, len(fields)), (b"content-type", b"application/json"))
    return (b"POST" if asks == "post" else b"GET"), fields


def worn(template: Sample, person: dict[str, str], tongue: bytes, random_: random.Random) -> list[tuple[bytes, bytes]]:
    """The fields of a captured request of the same family, as that person's browser would send them."""
    agent = read_agent(person["user-agent"].encode())
    fields = []
    for name, value in template.headers:
        made: bytes | None = value
        if name in {b"user-agent", b"sec-ch-ua", b"sec-ch-ua-mobile", b"sec-ch-ua-platform"}:
            made = person[name.decode()].encode() if name.decode() in person else None
        elif name == b"accept-language":
            made = tongue
        elif name == b"accept-encoding" and b"gzip" in value:
            modern = agent.major >= (123 if agent.family == CHROMIUM else 126)
            made = b"gzip, deflate, br, zstd" if modern else b"gzip, deflate, br"
        elif name == b"priority" and agent.major < (124 if agent.family == CHROMIUM else 128):
            made = None
        if made is not None:
            fields.append((name, made))
    if random_.random() < 0.2 and template.method == b"POST" and (b"sec-fetch-mode", b"cors") in template.headers:
        fields.insert(
            random_.randrange(len(fields)), random_.choice([(b"x-requested-with", b"XMLHttpRequest"), (b"x-csrf-token", b"x")])
        )
    return fields


def nearest(found: list[Signature], family: int, major: int, phone: bool, random_: random.Random) -> Signature | None:
    """The signature of that version, or of the newest before it, or of the oldest there is."""
    same = [s for s in found if s.family == family]
    alike = [s for s in same if s.phone == phone and abs(s.major - major) <= _NEAR]
    same = alike or same
    if not same:
        return None
    below = [s for s in same if s.major <= major] or [min(same, key=lambda s: s.major)]
    best = max(s.major for s in below)
    return random_.choice([s for s in below if s.major == best])


def humans(count: int, captured: list[Sample], seed: int) -> list[Sample]:
    """So many samples, three of a connection.

    Args:
        captured: samples of the real Chromium and Firefox (tier human).

    Returns: samples whose group is the signature that their TLS is from; empty without signatures or apify's package.
    """
    found = signatures()
    if not found:
        return []
    random_ = random.Random(seed)
    templates = {(family, p): [s for s in captured if s.group == group and s.protocol == p]
                 for family, group in ((CHROMIUM, "chromium"), (FIREFOX, "firefox")) for p in (0, 1, 2)}  # fmt: skip
    kinds = {place: _kinds(rows) for place, rows in templates.items()}
    made: list[Sample] = []
    for person in people(count // 3 + 1, random_):
        agent = read_agent(person["user-agent"].encode())
        when = max(random_.uniform(*COLLECTED), agent.released * _WEEK)
        if random_.random() < _LATE[0]:
            when += random_.uniform(0, _LATE[1])
        protocol = random_.choices((0, 1, 2), weights=(10, 70, 20))[0]
        if agent.family == SAFARI and protocol == 2:
            protocol = 1
        group, prints, one = _connection(agent.family, agent.major, agent.mobile, protocol, found, templates, random_)
        if prints is None:
            continue
        tongue = language(agent.family, agent.major, random_)
        silent = random_.random() < _SILENT
        for _ in range(3):
            if agent.family == SAFARI:
                assert one is not None
                method, fields = webkit(one.order, person, tongue, random_)
            else:
                known = kinds[agent.family, protocol]
                template = random_.choice(known[random_.choices(list(known), weights=[_KINDS[kind] for kind in known])[0]])
                method, fields = template.method, worn(template, person, tongue, random_)
            variant = f"{person['user-agent'][-40:]}"
            if silent:
                fields = [(name, value) for name, value in fields if name != b"referer"]
            made.append(Sample("synthesised", group, "human", variant, protocol, method, fields, prints, when))
    return made


_KINDS: Final = {"first": 30, "page": 15, "script": 40, "part": 15}  # what people's browsers ask an edge for, in percent


def _kinds(captured: list[Sample]) -> dict[str, list[Sample]]:
    """Captured requests by what asked: the person, a link, a script, a page for its parts."""
    found: dict[str, list[Sample]] = {}
    for sample in captured:
        fields = dict(sample.headers)
        mode, site = fields.get(b"sec-fetch-mode"), fields.get(b"sec-fetch-site")
        navigates = mode == b"navigate"
        script = fields.get(b"sec-fetch-dest") == b"empty"
        kind = "first" if navigates and site == b"none" else "page" if navigates else "script" if script else "part"
        found.setdefault(kind, []).append(sample)
    return found


def _connection(
    family: int,
    major: int,
    phone: bool,
    protocol: int,
    found: list[Signature],
    templates: dict[tuple[int, int], list[Sample]],
    random_: random.Random,
) -> tuple[str, Prints | None, Signature | None]:
    """Group, prints, and the signature if they are from one."""
    newest = max((s.major for s in found if s.family == family), default=0)
    here = templates.get((family, protocol), [])
    # Between the newest signature and the browser that was captured here, both are as near.
    if family != SAFARI and (protocol == 2 or (major > newest and random_.random() < 0.5)):
        if not here:
            return "", None, None
        sample = random_.choice(here)
        return f"{sample.group}-captured", sample.prints, None
    one = nearest(found, family, major, phone, random_)
    if one is None or (family != SAFARI and not here):
        return "", None, None
    mlkem = family == SAFARI and major >= 26 and random_.random() < 0.7
    prints = Prints(b"", "t")
    prints.hello = hello_of(one.hello, random_, mlkem)
    if protocol == 1:
        prints.h2 = one.h2._replace(priority=random_.choice(here).prints.h2.priority) if here else one.h2
    return one.name, prints, one
