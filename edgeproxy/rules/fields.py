# Every field of the rules language: its type, what may change it between equal heads, and when and at what cost it is known.
"""`FIELDS` by name. Cloudflare's fields, and ours, which begin with `edge.`

A field that Cloudflare has and this edge does not know (yet) is a missing value.
A field is *stable* if it follows from the head, the client and the configuration: rules that read nothing else are
decided once for all equal heads of a connection (plan.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from edgeproxy.rules.client import CLIENT
from edgeproxy.rules.sources import SIGNALS, SOURCES
from edgeproxy.rules.syntax import BOOL, BYTES, INT, IP, Type, array, mapping

STRINGS: Final = array(BYTES)
_MULTI: Final = mapping(STRINGS)
Phase = Literal["request", "response"]


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One field.

    Attributes:
        slot: the attribute of `Facts` that holds it.
        stable: see the module.
        always: never a missing value.
        cost: about how dear the first look is (a comparison is 1).
        known: this edge has a value for it at all.
        phase: from when on it is known.
        needs_body: it comes from the request body: missing until that was held (body.must_hold says of which requests).
        declared: but not where the head declares the length of the body.
    """

    name: str
    type: Type
    slot: str
    stable: bool = True
    always: bool = False
    cost: int = 1
    known: bool = True
    phase: Phase = "request"
    needs_body: bool = False
    declared: bool = False


_BODY: Final = "http.request.body."
_RESPONSE: Final = ("cf.response.", "http.response.", "raw.http.response.")
_SCORED: Final = frozenset({
    "cf.bot_management.detection_ids", "cf.bot_management.js_detection.passed", "cf.bot_management.score",
    "cf.bot_management.signed_agent", "cf.bot_management.verified_bot", "cf.client.bot", "cf.verified_bot_category",
    "edge.bot.score_source", *(f"edge.ja4.{name}" for name in SIGNALS),
})  # fmt: skip
_VOLATILE: Final = frozenset({
    "cf.random_seed", "cf.ray_id", "cf.timings.client_quic_rtt_msec", "cf.timings.client_tcp_rtt_msec",
    "http.request.timestamp.msec", "http.request.timestamp.sec", *_SCORED,
})  # fmt: skip
_MAY_MISS: Final = frozenset({
    *(name for name in CLIENT if name != "cf.edge.client_tcp"), "cf.bot_management.corporate_proxy", "cf.ray_id", "edge.key.id",
    "edge.key.name", "edge.route.dialect", "http.request.body.mime", "ip.src", *_SCORED,
})  # fmt: skip
_COSTS: Final = {
    **dict.fromkeys(CLIENT, 12), **dict.fromkeys(_SCORED, 30), "cf.edge.client_tcp": 1,
    "http.request.accepted_languages": 8, "http.request.cookies": 6, "http.request.headers": 4,
    "http.request.headers.names": 6, "http.request.headers.values": 6, "http.request.uri.args": 4,
    "http.request.uri.args.names": 6, "http.request.uri.args.values": 6, "http.request.uri.path.extension": 3,
    "ip.src": 2, "cf.random_seed": 3, "http.request.full_uri": 2, "http.request.body.form": 20,
    "http.request.body.form.names": 20, "http.request.body.form.values": 20, "http.request.body.mime": 2,
    "http.request.body.raw": 4, "edge.model": 40, "http.response.headers": 4, "http.response.headers.names": 3,
    "http.response.headers.values": 3, "http.response.content_type.media_type": 2,
}  # fmt: skip
_TYPES: Final[dict[Type, str]] = {
    BYTES: """
        cf.bot_management.ja3_hash cf.bot_management.ja4 cf.colo.name cf.colo.region cf.hostname.metadata
        cf.random_seed cf.ray_id cf.response.error_type cf.tls_cipher cf.tls_ciphers_sha1
        cf.tls_client_auth.cert_chain_rfc9440 cf.tls_client_auth.cert_fingerprint_sha1
        cf.tls_client_auth.cert_fingerprint_sha256 cf.tls_client_auth.cert_issuer_dn
        cf.tls_client_auth.cert_issuer_dn_legacy cf.tls_client_auth.cert_issuer_dn_rfc2253
        cf.tls_client_auth.cert_issuer_serial cf.tls_client_auth.cert_issuer_ski cf.tls_client_auth.cert_not_after
        cf.tls_client_auth.cert_not_before cf.tls_client_auth.cert_rfc9440 cf.tls_client_auth.cert_serial
        cf.tls_client_auth.cert_ski cf.tls_client_auth.cert_subject_dn cf.tls_client_auth.cert_subject_dn_legacy
        cf.tls_client_auth.cert_subject_dn_rfc2253 cf.tls_client_extensions_sha1 cf.tls_client_extensions_sha1_le
        cf.tls_client_random cf.tls_version cf.verified_bot_category cf.waf.score.class cf.worker.upstream_zone
        cf.zone.name cf.zone.plan edge.bot.score_source edge.key.id edge.key.name edge.model edge.route.dialect
        http.cookie http.host http.referer http.request.body.mime
        http.request.body.raw http.request.full_uri http.request.method http.request.uri http.request.uri.path
        http.request.uri.path.extension http.request.uri.query http.request.version
        http.response.content_type.media_type http.user_agent http.x_forwarded_for ip.geoip.continent ip.geoip.country
        ip.geoip.subdivision_1_iso_code ip.geoip.subdivision_2_iso_code ip.src.city ip.src.continent ip.src.country
        ip.src.lat ip.src.lon ip.src.metro_code ip.src.postal_code ip.src.region ip.src.region_code
        ip.src.subdivision_1_iso_code ip.src.subdivision_2_iso_code ip.src.timezone.name raw.http.request.full_uri
        raw.http.request.uri raw.http.request.uri.path raw.http.request.uri.path.extension raw.http.request.uri.query""",
    INT: """
        cf.bot_management.score cf.edge.l4.delivery_rate cf.edge.server_port cf.llm.prompt.injection_score
        cf.llm.prompt.token_count cf.response.1xxx_code cf.threat_score cf.timings.client_quic_rtt_msec
        cf.timings.client_tcp_rtt_msec cf.timings.edge_msec cf.timings.origin_ttfb_msec cf.timings.worker_msec
        cf.tls_client_hello_length cf.waf.content_scan.num_malicious_obj cf.waf.content_scan.num_obj cf.waf.score
        cf.waf.score.rce cf.waf.score.sqli cf.waf.score.xss http.request.body.size http.request.timestamp.msec
        http.request.timestamp.sec http.response.code ip.geoip.asnum ip.src.asnum edge.ja4.browser_percent_1h
        edge.ja4.h2h3_percent_1h edge.ja4.heuristic_percent_1h edge.ja4.ips_quantile_1h edge.ja4.ips_rank_1h
        edge.ja4.paths_rank_1h edge.ja4.reqs_quantile_1h edge.ja4.reqs_rank_1h edge.ja4.uas_rank_1h""",
    BOOL: """
        cf.api_gateway.auth_id_present cf.api_gateway.fallthrough_detected cf.api_gateway.request_violates_schema
        cf.bot_management.corporate_proxy cf.bot_management.js_detection.passed cf.bot_management.signed_agent
        cf.bot_management.static_resource cf.bot_management.verified_bot cf.client.bot cf.edge.client_tcp
        cf.llm.prompt.detected cf.llm.prompt.pii_detected cf.llm.prompt.unsafe_topic_detected
        cf.schema_validation.learned.violated cf.schema_validation.uploaded.violated
        cf.tls_client_auth.cert_chain_rfc9440_too_large cf.tls_client_auth.cert_presented
        cf.tls_client_auth.cert_revoked cf.tls_client_auth.cert_rfc9440_too_large cf.tls_client_auth.cert_verified
        cf.waf.auth_detected cf.waf.content_scan.has_failed cf.waf.content_scan.has_malicious_obj
        cf.waf.content_scan.has_obj cf.waf.credential_check.password_leaked
        cf.waf.credential_check.username_and_password_leaked cf.waf.credential_check.username_leaked
        cf.waf.credential_check.username_password_similar http.request.body.truncated http.request.headers.truncated
        ip.geoip.is_in_european_union ip.src.is_in_european_union ssl""",
    IP: "cf.edge.server_ip ip.src",
    STRINGS: """
        cf.llm.prompt.pii_categories cf.llm.prompt.unsafe_topic_categories cf.waf.content_scan.obj_results
        cf.waf.content_scan.obj_types http.request.accepted_languages http.request.body.form.names
        http.request.body.form.values http.request.body.multipart.values http.request.headers.names
        http.request.headers.values http.request.jwt.claims.aud.names http.request.jwt.claims.aud.values
        http.request.jwt.claims.iat.sec.names http.request.jwt.claims.iss.names http.request.jwt.claims.iss.values
        http.request.jwt.claims.jti.names http.request.jwt.claims.jti.values http.request.jwt.claims.nbf.sec.names
        http.request.jwt.claims.sub.names http.request.jwt.claims.sub.values http.request.uri.args.names
        http.request.uri.args.values http.response.headers.names http.response.headers.values
        raw.http.request.headers.names raw.http.request.headers.values raw.http.request.uri.args.names
        raw.http.request.uri.args.values raw.http.response.headers.names raw.http.response.headers.values""",
    array(INT): """
        cf.bot_management.detection_ids cf.waf.content_scan.obj_sizes http.request.jwt.claims.iat.sec.values
        http.request.jwt.claims.nbf.sec.values""",
    _MULTI: """
        http.request.body.form http.request.body.multipart http.request.cookies http.request.headers
        http.request.jwt.claims.aud http.request.jwt.claims.iss http.request.jwt.claims.jti
        http.request.jwt.claims.sub http.request.uri.args http.response.headers raw.http.request.headers
        raw.http.request.uri.args raw.http.response.headers""",
    mapping(array(INT)): "http.request.jwt.claims.iat.sec http.request.jwt.claims.nbf.sec",
    array(STRINGS): """
        http.request.body.multipart.content_dispositions http.request.body.multipart.content_transfer_encodings
        http.request.body.multipart.content_types http.request.body.multipart.filenames
        http.request.body.multipart.names""",
    mapping(INT): "cf.llm.prompt.custom_topic_categories",
}


def _info(name: str, kind: Type) -> FieldInfo:
    known = name in SOURCES
    needs_body = known and (name == "edge.model" or (name.startswith(_BODY) and name != "http.request.body.mime"))
    response = name.startswith(_RESPONSE)
    return FieldInfo(
        name,
        kind,
        name.replace(".", "_"),
        stable=not (name in _VOLATILE or needs_body or response),
        always=known and not (name in _MAY_MISS or needs_body or response),
        cost=_COSTS.get(name.removeprefix("raw."), 1),
        known=known,
        phase="response" if response else "request",
        needs_body=needs_body,
        declared=name == "http.request.body.size",
    )


FIELDS: Final[dict[str, FieldInfo]] = {name: _info(name, kind) for kind, names in _TYPES.items() for name in names.split()}


def lower_slot(info: FieldInfo) -> str:
    """Where a string field is kept in lower case: most rules that look at one twice do so."""
    return f"lower_{info.slot}"


def text_slot(slot: str) -> str:
    """Where a string is kept as Python's text, a character for each byte: `in` is seven times as fast there."""
    return f"text_{slot}"
