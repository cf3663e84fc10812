# 'edgeproxy keys': reads arguments, calls keys_store.py and prints. A key itself goes to standard output, once; nothing else does
# there but 'list'.
"""``edgeproxy keys create | list | revoke | rotate``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from edgeproxy.keys_store import Place
    from edgeproxy.policy.keytext import Made

app = typer.Typer(help="API keys of the edge.", no_args_is_help=True)

Config = Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="Take the places from its section 'keys'.")]
File = Annotated[Path | None, typer.Option("--file", metavar="FILE", help="The file of keys; default: keys.yaml.")]
Pepper = Annotated[Path | None, typer.Option("--pepper", metavar="FILE", help="Its pepper; default: keys.pepper.")]
Which = Annotated[str, typer.Argument(metavar="KEY", help="Its id (with or without 'ep-') or its name.")]
Many = list[str] | None


@app.command()
def create(
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="For people, metrics and logs.")],
    models: Annotated[Many, typer.Option("--models", metavar="MODEL,…", help="Names, or prefixes ending in '*'; or all.")] = None,
    expires: Annotated[str, typer.Option("--expires", metavar="TIME", help="In 90d, or at 2026-12-31.")] = "never",
    limits: Annotated[Many, typer.Option("--limits", metavar="NAME,…", help="Limits of the configuration.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option("--tokens-per-day", min=1, metavar="N", help="Budget.")] = None,
    tokens_per_month: Annotated[int | None, typer.Option("--tokens-per-month", min=1, metavar="N", help="Budget.")] = None,
    tags: Annotated[Many, typer.Option("--tags", metavar="WORD,…", help="For rules, logs and events.")] = None,
    networks: Annotated[Many, typer.Option("--networks", metavar="CIDR,…", help="Where it may be used; or anywhere.")] = None,
    ja4: Annotated[Many, typer.Option("--ja4", metavar="JA4,…", help="Fingerprints, or their first parts; or any.")] = None,
    config: Config = None,
    file: File = None,
    pepper: Pepper = None,
) -> None:
    """Makes a key and prints it: this once, on standard output. The first one makes the files too.

    Examples: edgeproxy keys create --name team-chat --models 'gpt-*,small' --expires 90d;
    edgeproxy keys create --name batch --networks 10.0.0.0/8 --tokens-per-day 1000000 -c edge.yaml > batch.key
    """
    from edgeproxy import keys_store

    where = _place(config, file, pepper)
    budget = {key: value for key, value in (("tokens_per_day", tokens_per_day), ("tokens_per_month", tokens_per_month)) if value}
    lists = {"models": models, "limits": limits, "tags": tags, "networks": networks, "ja4": ja4}
    now = time.time()
    try:
        fields: dict[str, Any] = {"name": name}
        if (end := _end(expires, now)) is not None:
            fields["expires"] = end
        fields |= {key: _parts(value) for key, value in lists.items() if value}
        fields |= {"budget": budget} if budget else {}
        model, made = keys_store.create(where, fields, now)
    except keys_store.KeysError as error:
        _fail(error)
    _show(made, f"key '{model.name}' is in {where.where.name}; it works {where.where.soon}")


@app.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
    config: Config = None,
    file: File = None,
) -> None:
    """Prints all keys, without any secret or hash.

    Examples: edgeproxy keys list; edgeproxy keys list --json -c edge.yaml
    """
    from edgeproxy import keys_store
    from edgeproxy.config.keys import public

    try:
        keys = keys_store.listed(_place(config, file, None))
    except keys_store.KeysError as error:
        _fail(error)
    now = time.time()
    if as_json:
        for key in keys:
            typer.echo(json.dumps(public(key, now)))
        return
    rows = [("KEY", "NAME", "STATE", "EXPIRES", "MODELS", "LIMITS", "TAGS")]
    for key in keys:
        shown = public(key, now)
        models, limits, tags = (", ".join(shown[part]) or "-" for part in ("models", "limits", "tags"))
        rows.append((shown["key"], key.name, shown["state"], shown["expires"] or "never", models, limits, tags))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def revoke(which: Which, config: Config = None, file: File = None) -> None:
    """Ends a key, for good. It stays on the list, so that its id is known in logs.

    Examples: edgeproxy keys revoke team-chat; edgeproxy keys revoke ep-Ab3dEf9h -c edge.yaml
    """
    from edgeproxy import keys_store

    where = _place(config, file, None)
    try:
        model = keys_store.revoke(where, which, time.time())
    except keys_store.KeysError as error:
        _fail(error)
    said = f"key ep-{model.id} '{model.name}' is revoked in {where.where.name}"
    typer.echo(f"{said}: it ends {where.where.soon}", err=True)


@app.command()
def rotate(
    which: Which,
    keep: Annotated[str, typer.Option("--keep", metavar="TIME", help="How long the old secret works too, or 0s.")] = "24h",
    config: Config = None,
    file: File = None,
    pepper: Pepper = None,
) -> None:
    """Gives a key another secret and prints it, this once. Its id, limits and budget stay; the old secret works for a while.

    Examples: edgeproxy keys rotate team-chat --keep 24h; edgeproxy keys rotate ep-Ab3dEf9h --keep 0s
    """
    from edgeproxy import keys_store
    from edgeproxy.config.problems import Invalid
    from edgeproxy.config.units import parse_duration

    where = _place(config, file, pepper)
    now = time.time()
    try:
        seconds = parse_duration(keep)
        model, made = keys_store.rotate(where, which, seconds, now)
    except (keys_store.KeysError, Invalid) as error:
        _fail(error)
    old = f"the old secret ends {_after(now + seconds)}" if seconds else "the old secret ends"
    if model.previous is not None and (model.previous.until or 0) > now:
        old += f", and the one before it {where.where.soon}"
    _show(made, f"key '{model.name}' has a new secret in {where.where.name}; it works {where.where.soon}; {old}")


def _place(config: Path | None, file: Path | None, pepper: Path | None) -> Place:
    from edgeproxy import keys_store

    try:
        return keys_store.place(config, file, pepper)
    except keys_store.KeysError as error:
        _fail(error)


def _end(text: str, now: float) -> str | None:
    """`90d` from now, a time, or `never`."""
    from edgeproxy.config.keys import parse_time, show_time
    from edgeproxy.config.problems import Invalid
    from edgeproxy.config.units import parse_duration
    from edgeproxy.keys_store import KeysError

    if text == "never":
        return None
    try:
        end = parse_time(text) if text[4:5] == "-" else now + parse_duration(text)
    except Invalid as error:
        raise KeysError(f"--expires: {error.message} ({error.hint})") from error
    if end <= now:
        raise KeysError("--expires: that is over already")
    return show_time(end)


def _parts(values: list[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _after(end: float) -> str:
    from edgeproxy.config.keys import show_time

    return f"at {show_time(end)}"


def _show(made: Made, note: str) -> None:
    typer.echo(made.text)
    typer.echo(f"{note}.\nKeep the key now: it is stored nowhere and cannot be shown again.", err=True)


def _fail(error: Exception) -> NoReturn:
    typer.echo(str(error), err=True)
    raise typer.Exit(1)
