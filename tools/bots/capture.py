# Runs real clients against the edge and keeps what it saw. One client after the other, each bounded in time and in requests.
"""`python -m tools.bots.capture [--only NAME …] [--cache DIR] [--data DIR]`: what was captured before is kept, unless
`--again`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from edgeproxy.listen.hello import Hello
from tools.bots.clients import CLIENTS, Client
from tools.bots.drivers.lies import ROBOTS
from tools.bots.edge import Edges, Recording, Seen, recording
from tools.bots.samples import Sample, clean, made_of, read, write
from tools.bots.starting import Command, Missing, commands, environment, prepare
from tools.bots.upstream import serve

DATA = Path(__file__).parent / "data"
CACHE = Path(tempfile.gettempdir()) / "edgeproxy-bots"
_SHOWN = ("version", "requests", "samples", "missing")  # of a client's note, in the manifest; complaints name paths
_POLL = 0.25  # seconds between two looks at whether a page came to its end
_PER_VARIANT = 40  # samples of a variant and protocol that are kept; browsers make hundreds


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--again", action="store_true", help="capture anew what is there")
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_capture(given))


async def _capture(given: argparse.Namespace) -> None:
    parts = given.cache / "captured"
    parts.mkdir(parents=True, exist_ok=True)
    async with serve() as (upstream, done), recording(given.cache / "certs", upstream) as edges:
        for client in CLIENTS:
            note = parts / f"{client.name}.json"
            if (given.only and client.name not in given.only) or (note.exists() and not given.again and not given.only):
                continue
            started = time.time()
            said = await _one(client, edges, given.cache, done)
            seen, Recording.seen = Recording.seen, []
            Recording.labels.clear()
            samples = _samples(client, seen)
            write(parts / f"{client.name}.jsonl.xz", samples)
            row = {**said, "requests": len(seen), "samples": len(samples), "seconds": round(time.time() - started, 1)}
            note.write_text(json.dumps(row))
            print(client.name, row, flush=True)
    _merge(parts, given.data)


async def _one(client: Client, edges: Edges, cache: Path, done: set[str]) -> dict[str, Any]:
    """Returns: what the manifest says of it."""
    try:
        folder = await asyncio.to_thread(prepare, client, cache / "clients")
        version, complaints = "", ""
        for highest in client.highest:
            for command in commands(client, folder, highest, edges.ports[highest], edges.certificates.ca):
                out, bad = await play(command, done)
                version = version or out.split("\n")[0][:60]
                complaints = complaints or bad
    except Missing as e:
        return {"missing": str(e)}
    return {
        "version": version if version and client.way not in {"command", "browser"} else await _version(client, folder),
        "complaints": complaints[-400:],
    }


async def play(command: Command, done: set[str]) -> tuple[str, str]:
    """Runs it to its end, to the end of its page, or until its time is over. Returns: what it said."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as bad:
        try:
            process = await asyncio.create_subprocess_exec(
                *command.argv, cwd=command.folder, env=environment(command.environment), stdin=asyncio.subprocess.DEVNULL,
                stdout=out, stderr=bad, start_new_session=True,
            )  # fmt: skip
        except OSError as e:
            return "", str(e)
        until = time.monotonic() + command.seconds
        while process.returncode is None and time.monotonic() < until and command.done not in done:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _POLL)
        done.discard(command.done)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # its whole session, which is ours
        await process.wait()
        out.seek(0)
        bad.seek(0)
        return out.read(100_000).decode("utf-8", "replace"), bad.read(100_000).decode("utf-8", "replace")


async def _version(client: Client, folder: Path) -> str:
    if client.way == "node" and client.start:
        about = json.loads((folder / "node_modules" / client.start[0] / "package.json").read_text())
        return str(about["version"])
    program = client.start[0] if client.way in {"command", "plan"} else client.name.split("-")[0]
    program = {"firefox": "firefox-esr", "fetch": "node", "http2": "node"}.get(program, program)
    flag = "-version" if program == "w3m" else "--version"
    with contextlib.suppress(OSError, TimeoutError):
        process = await asyncio.create_subprocess_exec(
            program, flag, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, stdin=asyncio.subprocess.DEVNULL
        )
        out, _ = await asyncio.wait_for(process.communicate(), 20)
        return out.decode("utf-8", "replace").split("\n")[0][:60]
    return ""


def _samples(client: Client, seen: list[Seen]) -> list[Sample]:
    """What was seen, sanitised; robots' names make a declared robot of any client."""
    made: list[Sample] = []
    kept: dict[tuple[str, int], int] = {}
    for one in seen:
        request = one.request
        prints = request.peer.prints
        if prints is None:
            continue
        place = (one.variant, request.protocol)
        kept[place] = kept.get(place, 0) + 1
        if kept[place] > _PER_VARIANT * (5 if client.tier == "human" else 1):
            continue
        tier = "declared" if (request.header(b"user-agent") or b"").decode("latin-1") in ROBOTS else client.tier
        headers = clean(request.headers, request.authority)
        made.append(
            Sample(one.client, client.group, tier, one.variant, request.protocol, request.method, headers, prints, one.when)
        )
    return made


def _merge(parts: Path, data: Path) -> None:
    """All captured clients as one file, and the manifest."""
    samples: list[Sample] = []
    rows: dict[str, Any] = {}
    for client in CLIENTS:
        note = parts / f"{client.name}.json"
        if not note.exists():
            continue
        said = json.loads(note.read_text())
        found = read(parts / f"{client.name}.jsonl.xz")
        names = sorted({hashlib.sha256(json.dumps(made_of(s.prints)).encode()).hexdigest()[:8] for s in found})
        rows[client.name] = {
            "group": client.group, "tier": client.tier, **{key: said[key] for key in _SHOWN if key in said},
            "ja4": sorted({s.prints.ja4n for s in found})[:12], "connections": len(names),
        }  # fmt: skip
        samples += found
    size = write(data / "captured.jsonl.xz", samples)
    digest = hashlib.sha256((data / "captured.jsonl.xz").read_bytes()).hexdigest()
    about = {"samples": len(samples), "bytes": size, "sha256": digest, "hello": list(Hello._fields), "clients": rows}
    (data / "captured.json").write_text(json.dumps(about, indent=1) + "\n")
    print(f"{len(samples)} samples, {size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
