# What the proxies forward to: one nginx on the load core. It also counts: a run's units are known from its far end.
"""The upstream of every case: a JSON answer, SSE streams (lua), files of 1 MiB and 64 MiB, a body that is read and answered."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from bench.children import Child, Failure, find, free_port, wait_port

CHUNKS = 100
MIB = 1 << 20
LARGE = 64 * MIB
ANSWER = (
    '{"id":"chatcmpl-123","object":"chat.completion","created":1700000000,"model":"gpt-4o-mini","choices":[{"index":0,'
    '"message":{"role":"assistant","content":"Hello! How can I assist you today? This is a medium sized answer that '
    "has a couple of sentences so that the body is not trivially small. It says a little more, to be about as long as "
    'short answers are."},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":9,"completion_tokens":32,"total_tokens":41}}'
)
QUESTION = (
    '{"model":"gpt-4o-mini","messages":[{"role":"system","content":"You are helpful."},{"role":"user","content":'
    '"Hello, please tell me about the ocean and the life within it."}],"stream":false}'
)
EVENT = (
    'data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini","choices":'
    '[{"index":0,"delta":{"content":" hello"},"finish_reason":null}]}\n\n'
)
DONE = "data: [DONE]\n\n"
STREAM_BYTES = CHUNKS * len(EVENT) + len(DONE)
LUA_HINT = "nginx has no lua module (Debian package libnginx-mod-http-lua): the cases that stream are skipped"

MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")

BASE = """\
{modules}
worker_processes 1; daemon off; pid up.pid; error_log up.err crit; {user}
events {{ worker_connections 16384; }}
http {{
 access_log off; keepalive_requests 100000000; keepalive_timeout 600s; client_max_body_size 4m;
 client_body_buffer_size 2m;
 client_body_temp_path up-body; proxy_temp_path up-proxy; fastcgi_temp_path up-fastcgi; uwsgi_temp_path up-uwsgi;
 scgi_temp_path up-scgi;
 {init}
 server {{ listen 127.0.0.1:{port} backlog=4096;
  location / {{ default_type application/json; return 200 '{answer}'; }}
  location = /bench/status {{ stub_status; }}
  location = /bulk/file {{ default_type application/octet-stream; alias {file}; }}
  location = /bulk/large {{ default_type application/octet-stream; alias {file}-large; }}
  {lua} }} }}
"""
LUA = """\
location = /bench/chunks { content_by_lua_block { ngx.print(bench.chunks) } }
  location = /bulk/up { content_by_lua_block { ngx.req.read_body() ngx.print('{"ok":true}') } }
  location = /sse/fast { default_type text/event-stream; content_by_lua_block {
   local event = 'EVENT'
   ngx.req.read_body()
   for i = 1, CHUNKS do ngx.print(event); ngx.flush(true); bench.chunks = bench.chunks + 1; ngx.sleep(0.01) end
   ngx.print('data: [DONE]\\n\\n') } }
  location = /sse/slow { default_type text/event-stream; content_by_lua_block {
   local event = 'EVENT'
   ngx.req.read_body()
   for i = 1, 600 do ngx.print(event); ngx.flush(true); ngx.sleep(1) end } }"""


def lua_modules() -> list[str]:
    """load_module lines for the lua module, or nothing when it is not installed."""
    for folder in ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/nginx/modules"):
        if all(Path(folder, name).exists() for name in MODULES):
            return [f"load_module {folder}/{name};" for name in MODULES]
    return []


@dataclass(slots=True)
class Upstream:
    """The running upstream. `lua` says whether the streaming locations exist."""

    child: Child
    port: int
    lua: bool
    file: Path
    asked: int = 0
    large_sum: str = ""

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    def requests(self) -> int:
        """Requests served until now, those of the bench itself left out."""
        self.asked += 1
        return parse_status(self._get("/bench/status")) - self.asked

    def chunks(self) -> int:
        """SSE chunks sent until now by /sse/fast."""
        self.asked += 1
        return int(self._get("/bench/chunks"))

    def large(self) -> str:
        """Make the file behind /bulk/large when it is first wanted; its SHA-256 in hexadecimal."""
        if not self.large_sum:
            data = os.urandom(LARGE)
            self.file.with_name(f"{self.file.name}-large").write_bytes(data)
            self.large_sum = hashlib.sha256(data).hexdigest()
        return self.large_sum


def parse_status(text: str) -> int:
    """The third number below "server accepts handled requests" of nginx' stub_status page."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if line.startswith("server accepts"):
            return int(lines[at + 1].split()[2])
    raise ValueError(f"not a stub_status page: {text!r}")


def configuration(port: int, file: Path, modules: list[str]) -> str:
    lua = LUA.replace("EVENT", EVENT.replace("\n", "\\n")).replace("CHUNKS", str(CHUNKS)) if modules else ""
    return BASE.format(
        modules="\n".join(modules),
        user="user root;" if os.geteuid() == 0 else "",  # nobody's worker could not read the temporary directory
        init="init_by_lua_block { bench = { chunks = 0 } }" if modules else "",
        port=port,
        answer=ANSWER,
        file=file,
        lua=lua,
    )


def start(folder: Path, cores: str) -> Upstream:
    """Start the upstream in `folder`; raises Failure when nginx is missing or does not come up."""
    nginx = find("nginx")
    if nginx is None:
        raise Failure("nginx is missing, the upstream of every case (Debian packages nginx, libnginx-mod-http-lua)")
    modules = lua_modules()
    port = free_port()
    file = folder / "1mib"
    file.write_bytes(os.urandom(MIB))
    (folder / "up.conf").write_text(configuration(port, file, modules))
    child = Child([nginx, "-p", str(folder), "-c", "up.conf"], cores=cores, cwd=folder, log=folder / "up.log")
    try:
        wait_port(port, child)
    except Failure:
        child.stop()
        raise
    return Upstream(child, port, bool(modules), file)
