# 'edgeproxy block' and 'edgeproxy limits': reads arguments, asks the running edge (admin_client.py) and prints what it says.
"""``edgeproxy block add | remove | list`` and ``edgeproxy limits show | reset``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

block_app = typer.Typer(help="Refuse addresses, networks, fingerprints or keys for a time.", no_args_is_help=True)
limits_app = typer.Typer(help="How full the limits of a request or key are, and emptying them.", no_args_is_help=True)

Config = Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="Ask the edge of this configuration.")]
At = Annotated[str | None, typer.Option("--admin", metavar="HOST:PORT", help="Its admin address; default: 127.0.0.1:9180.")]
Json = Annotated[bool, typer.Option("--json", help="The edge's answer as it is, for programs.")]
Target = Annotated[str, typer.Argument(metavar="WHAT", help="An IP address, a network (10.0.0.0/8), a JA4, or a key (ep-…).")]
Url = Annotated[str | None, typer.Argument(metavar="[URL]", help="Of the request.")]
Key = Annotated[str | None, typer.Option("--key", metavar="ep-ID", help="A key of the edge, by its id; alone, or with a URL.")]
Name = Annotated[str | None, typer.Option("--limit", metavar="NAME", help="This limit alone.")]
Method = Annotated[str | None, typer.Option("--request", "-X", metavar="METHOD", help="GET, or POST with --data.")]
Header = Annotated[list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="Any number.")]
Data = Annotated[str | None, typer.Option("--data", "-d", metavar="TEXT", help="The body.")]
Client = Annotated[str | None, typer.Option("--client", metavar="IP", help="Where the connection comes from.")]


@block_app.command()
def add(
    what: Target,
    time_: Annotated[str, typer.Option("--for", metavar="TIME", help="How long: 30s, 10m, 1h, 7d.")] = "1h",
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="For people; shown by 'list' and in events.")] = "",
    config: Config = None,
    admin: At = None,
) -> None:
    """Refuses it for a time with 403, on all workers within a second, and on all edges with the same store within a few.

    Examples: edgeproxy block add 203.0.113.7 --for 1h --reason scraping -c edge.yaml;
    edgeproxy block add 2001:db8::/48 --for 7d; edgeproxy block add ep-Ab3dEf9h --for 10m
    """
    from edgeproxy.config.problems import Invalid
    from edgeproxy.config.units import parse_duration

    try:
        seconds = round(parse_duration(time_))
    except Invalid as error:
        _fail(f"--for: {error.message} ({error.hint})")
    if seconds < 1:
        _fail("--for: at least 1s; 'edgeproxy block remove' takes a block away")
    said = _ask(config, admin, "POST", "/api/blocks", {_kind(what): what, "seconds": seconds, "reason": reason})
    typer.echo(f"{_what(said)} is blocked until {_time(said['until'])}")


@block_app.command()
def remove(what: Target, config: Config = None, admin: At = None) -> None:
    """Takes a block away, as it was added; exit code 1 if there is none.

    Examples: edgeproxy block remove 203.0.113.7 -c edge.yaml; edgeproxy block remove 10.0.0.0/8
    """
    said = _ask(config, admin, "POST", "/api/blocks", {_kind(what): what, "seconds": 0})
    if not said["removed"]:
        _fail(f"{_what(said)} is not blocked by itself ('edgeproxy block list' shows what is)")
    typer.echo(f"{_what(said)} is blocked no more")


@block_app.command("list")
def list_blocks(as_json: Json = False, config: Config = None, admin: At = None) -> None:
    """Prints all blocks.

    Example: edgeproxy block list -c edge.yaml
    """
    said = _ask(config, admin, "GET", "/api/blocks")
    if as_json:
        typer.echo(json.dumps(said))
        return
    rows = [("WHAT", "UNTIL", "SINCE", "REASON")]
    rows += [(_what(each), _time(each["until"]), _time(each["since"]), each["reason"] or "-") for each in said["blocks"]]
    _table(rows)


@limits_app.command()
def show(
    url: Url = None, key: Key = None, limit: Name = None, method: Method = None, header: Header = None, data: Data = None,
    client: Client = None, as_json: Json = False, config: Config = None, admin: At = None,
) -> None:  # fmt: skip
    """Prints how full the limits are that a request, or a key of the edge, is under.

    Examples: edgeproxy limits show https://chat.example/v1/models --client 203.0.113.7 -c edge.yaml;
    edgeproxy limits show --key ep-Ab3dEf9h
    """
    said = _ask(config, admin, "POST", "/api/limits", _question(url, key, limit, method, header, data, client))
    if as_json:
        typer.echo(json.dumps(said))
        return
    rows = [("LIMIT", "ALLOWS", "LEFT", "WHOLE IN", "REFUSED FOR")]
    for each in said["limits"]:
        name = each["limit"] + ("" if each["mode"] == "act" else " (log)")
        left = f"{each['remaining']} of {each['most']}"
        rows.append((name, each["says"], left, _seconds(each["reset"]), _seconds(each["blocked"])))
    if len(rows) > 1:
        _table(rows)
    _notes(said)


@limits_app.command()
def reset(
    url: Url = None, key: Key = None, limit: Name = None, method: Method = None, header: Header = None, data: Data = None,
    client: Client = None, config: Config = None, admin: At = None,
) -> None:  # fmt: skip
    """Forgets what was counted in the limits that 'show' shows for the same arguments. Leases of requests under way go, too.

    Examples: edgeproxy limits reset --key ep-Ab3dEf9h --limit budget.day -c edge.yaml;
    edgeproxy limits reset https://chat.example/ --client 203.0.113.7 --limit per-ip
    """
    said = _ask(config, admin, "POST", "/api/limits/reset", _question(url, key, limit, method, header, data, client))
    typer.echo(f"reset: {', '.join(said['reset']) or 'nothing'}")
    _notes(said)


def _question(
    url: str | None, key: str | None, limit: str | None, method: str | None, headers: list[str] | None, data: str | None,
    client: str | None,
) -> dict[str, Any]:  # fmt: skip
    if url is None and key is None:
        _fail("give a URL (and --client, -H, …), or --key ep-ID")
    asked: dict[str, Any] = {name: value for name, value in (("key", key), ("limit", limit)) if value is not None}
    if url is not None:
        pairs = []
        for each in headers or []:
            name, colon, value = each.partition(":")
            if not colon:
                _fail(f"--header: {each!r} has no colon")
            pairs.append((name.strip(), value.strip()))
        parts = {"url": url, "method": method, "headers": pairs, "body": data, "client": client}
        asked["request"] = {name: value for name, value in parts.items() if value}
    elif method or headers or data or client:
        _fail("-X, -H, -d and --client belong to a URL")
    return asked


def _kind(what: str) -> str:
    if what.startswith("ep-"):
        return "key"
    if "/" in what:
        return "network"
    return "ip" if "." in what or ":" in what else "ja4"


def _what(row: dict[str, Any]) -> str:
    kind = next(kind for kind in ("ip", "network", "ja4", "key") if kind in row)
    return f"{kind} {row[kind]}"


def _ask(config: Path | None, admin: str | None, method: str, path: str, content: Any = None) -> Any:
    from edgeproxy.admin_client import AdminError, reach

    try:
        return reach(config, admin).ask(method, path, content)
    except AdminError as error:
        _fail(str(error))


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _notes(said: dict[str, Any]) -> None:
    if said.get("says"):
        typer.echo(said["says"], err=True)
    if said.get("left_out"):
        typer.echo(f"not without a request (give a URL): {', '.join(said['left_out'])}", err=True)


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds else "-"


def _fail(text: str) -> NoReturn:
    print(text, file=sys.stderr)  # noqa: T201  the terminal
    raise typer.Exit(1)
