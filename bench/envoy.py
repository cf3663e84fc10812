# Envoy's configuration is long enough for a file of its own; what it is for is said in peers.py.
"""Envoy as a peer: without `log` as in the first measurements (plus HSTS), with it doing what edgeproxy does.

In both, Envoy counts its statistics and sets x-forwarded-proto and x-request-id; `log` adds a JSON access log and
X-Forwarded-For.
"""

from __future__ import annotations

from pathlib import Path


def configuration(port: int, upstream: int, pair: tuple[Path, Path], hsts: str, log: Path | None) -> dict[str, object]:
    """The bootstrap as JSON, which Envoy reads like YAML. `pair`: certificate and key, `log`: the access log's file."""
    hcm_type = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    routes = [
        {"match": {"prefix": prefix}, "route": {"cluster": "chat", "timeout": "0s"}}
        for prefix in ("/v1/", "/sse/", "/")
    ]
    hcm: dict[str, object] = {
        "@type": hcm_type,
        "stat_prefix": "edge",
        "codec_type": "AUTO",
        "common_http_protocol_options": {"idle_timeout": "600s"},
        "stream_idle_timeout": "600s",
        "route_config": {
            "name": "r",
            "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}],
            "response_headers_to_add": [{"header": {"key": "strict-transport-security", "value": hsts}}],
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    if log is not None:
        hcm["use_remote_address"] = True
        fields = {
            "time": "%START_TIME%",
            "ray": "%REQ(X-REQUEST-ID)%",
            "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
            "protocol": "%PROTOCOL%",
            "method": "%REQ(:METHOD)%",
            "host": "%REQ(:AUTHORITY)%",
            "path": "%REQ(:PATH)%",
            "status": "%RESPONSE_CODE%",
            "bytes_in": "%BYTES_RECEIVED%",
            "bytes_out": "%BYTES_SENT%",
            "duration_ms": "%DURATION%",
            "first_byte_ms": "%RESPONSE_DURATION%",
            "route": "%ROUTE_NAME%",
            "upstream": "%UPSTREAM_HOST%",
            "outcome": "%RESPONSE_FLAGS%",
            "user_agent": "%REQ(USER-AGENT)%",
        }
        hcm["access_log"] = [
            {
                "name": "file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": str(log),
                    "log_format": {"json_format": fields},
                },
            }
        ]
    tls = {
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [
                    {"certificate_chain": {"filename": str(pair[0])}, "private_key": {"filename": str(pair[1])}}
                ],
            },
        },
    }
    listener = {
        "name": "tcp",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "tcp_backlog_size": 4096,
        "filter_chains": [{"transport_socket": tls, "filters": [{"name": "hcm", "typed_config": hcm}]}],
    }
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}}}
    thresholds = {"max_connections": 20000, "max_requests": 100000, "max_pending_requests": 100000}
    cluster = {
        "name": "chat",
        "type": "STATIC",
        "connect_timeout": "2s",
        "circuit_breakers": {"thresholds": [thresholds]},
        "load_assignment": {"cluster_name": "chat", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
