# Envoy's configurations are long enough for a file of their own; what they are for is said in peers.py and h3_load.py.
"""Envoy as a peer: without `log` as in the first measurements (plus HSTS), with it doing what edgeproxy does.

In both, Envoy counts its statistics and sets x-forwarded-proto and x-request-id; `log` adds a JSON access log and
X-Forwarded-For. With `h3` it listens to QUIC on the same port, too. `front` is the other use: HTTP/1.1 in, HTTP/3 out,
the load of the cases over HTTP/3.
"""

from __future__ import annotations

from pathlib import Path

HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
SOCKETS = "type.googleapis.com/envoy.extensions.transport_sockets"
QUIC = "envoy.transport_sockets.quic"  # the name counts here, not only the type


def address(port: int, protocol: str = "TCP") -> dict[str, object]:
    return {"socket_address": {"protocol": protocol, "address": "127.0.0.1", "port_value": port}}


def configuration(
    port: int, upstream: int, pair: tuple[Path, Path], hsts: str, log: Path | None, h3: bool = False
) -> dict[str, object]:
    """The bootstrap as JSON, which Envoy reads like YAML. `pair`: certificate and key, `log`: the access log's file."""
    routes = [
        {"match": {"prefix": prefix}, "route": {"cluster": "chat", "timeout": "0s"}}
        for prefix in ("/v1/", "/sse/", "/")
    ]
    hcm: dict[str, object] = {
        "@type": HCM,
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
                "typed_config": {"@type": ROUTER},
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
    certificates = [{"certificate_chain": {"filename": str(pair[0])}, "private_key": {"filename": str(pair[1])}}]
    tls = {
        "name": "tls",
        "typed_config": {
            "@type": f"{SOCKETS}.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": certificates,
            },
        },
    }
    listeners: list[dict[str, object]] = [
        {
            "name": "tcp",
            "address": address(port),
            "tcp_backlog_size": 4096,
            "filter_chains": [{"transport_socket": tls, "filters": [{"name": "hcm", "typed_config": hcm}]}],
        }
    ]
    if h3:
        quic = {
            "name": QUIC,
            "typed_config": {
                "@type": f"{SOCKETS}.quic.v3.QuicDownstreamTransport",
                "downstream_tls_context": {"common_tls_context": {"tls_certificates": certificates}},
            },
        }
        over = hcm | {"codec_type": "HTTP3", "http3_protocol_options": {}}
        listeners.append(
            {
                "name": "udp",
                "address": address(port, "UDP"),
                # As in Envoy's own example of an HTTP/3 listener.
                "udp_listener_config": {"quic_options": {}, "downstream_socket_config": {"prefer_gro": True}},
                "filter_chains": [{"transport_socket": quic, "filters": [{"name": "hcm", "typed_config": over}]}],
            }
        )
    endpoint = {"endpoint": {"address": address(upstream)}}
    thresholds = {"max_connections": 20000, "max_requests": 100000, "max_pending_requests": 100000}
    cluster = {
        "name": "chat",
        "type": "STATIC",
        "connect_timeout": "2s",
        "circuit_breakers": {"thresholds": [thresholds]},
        "load_assignment": {"cluster_name": "chat", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return {"static_resources": {"listeners": listeners, "clusters": [cluster]}}


def front(port: int, admin: int, server: int, trusted: Path, name: str, connections: int) -> dict[str, object]:
    """HTTP/1.1 on `port`, HTTP/3 to the `server`'s port over as many QUIC connections, picked at random per request.

    A pool opens a further connection only when all streams of those it has are taken, which a single thread sees too
    rarely to tell how many there will be; so each connection is a cluster of its own, with room for all streams. What it
    adds to requests by itself is taken off again, and the scheme is that of the far side, so that the server under test
    sees the same request as in the other cases.
    """
    names = [f"server{at}" for at in range(connections)]
    weights = {"clusters": [{"name": each, "weight": 1} for each in names]}
    route = {
        "match": {"prefix": "/"},
        "route": {"weighted_clusters": weights, "timeout": "0s"},
        "request_headers_to_remove": ["x-forwarded-proto"],
    }
    hcm = {
        "@type": HCM,
        "stat_prefix": "front",
        "codec_type": "HTTP1",
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "scheme_header_transformation": {"scheme_to_overwrite": "https"},
        "common_http_protocol_options": {"idle_timeout": "600s"},
        "stream_idle_timeout": "600s",
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER, "suppress_envoy_headers": True}}],
    }
    listener = {
        "name": "plain",
        "address": address(port),
        "tcp_backlog_size": 4096,
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}],
    }
    quic = {
        "name": QUIC,
        "typed_config": {
            "@type": f"{SOCKETS}.quic.v3.QuicUpstreamTransport",
            "upstream_tls_context": {
                "sni": name,
                "common_tls_context": {"validation_context": {"trusted_ca": {"filename": str(trusted)}}},
            },
        },
    }
    protocol = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http3_protocol_options": {}},
    }
    thresholds = {"max_connections": 20000, "max_requests": 100000, "max_pending_requests": 100000}
    endpoint = {"endpoint": {"address": address(server)}}
    cluster = {
        "type": "STATIC",
        "connect_timeout": "2s",
        "circuit_breakers": {"thresholds": [thresholds]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
        "transport_socket": quic,
    }
    clusters = [
        cluster | {"name": each, "load_assignment": {"cluster_name": each, "endpoints": [{"lb_endpoints": [endpoint]}]}}
        for each in names
    ]
    return {"admin": {"address": address(admin)}, "static_resources": {"listeners": [listener], "clusters": clusters}}
