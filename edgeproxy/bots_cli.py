# 'edgeproxy bots': reads arguments, calls lookups/ranges.py or the catalogue, and prints. Nothing is decided here.
"""``edgeproxy bots fetch | list``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Bots that say who they are.", no_args_is_help=True)


@app.command()
def fetch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files are put; the configuration names it.")],
    only: Annotated[list[str] | None, typer.Option("--only", metavar="NAME", help="These alone; else all.")] = None,
) -> None:
    """Downloads the networks that operators publish for their bots; exit code 1 if one could not be had (its old file stays).

    Example: edgeproxy bots fetch /var/lib/edgeproxy/ranges; a running edge takes the new files by itself.
    """
    import asyncio

    from edgeproxy.bots.catalogue import shipped
    from edgeproxy.lookups.ranges import fetch_all

    sources = shipped().sources
    unknown = [name for name in only or () if name not in sources]
    if unknown:
        raise typer.BadParameter(f"there is no '{unknown[0]}'; known are {', '.join(sources)}")
    chosen = {name: url for name, url in sources.items() if not only or name in only}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        typer.echo(f"{folder}: {error.strerror or error}", err=True)
        raise typer.Exit(1) from None
    failed = 0
    for outcome in asyncio.run(fetch_all(folder, chosen)):
        failed += bool(outcome.problem)
        typer.echo(f"{outcome.name}: {outcome.problem or f'{outcome.networks} networks'}", err=bool(outcome.problem))
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_bots(
    user_agent: Annotated[
        str | None, typer.Option("--user-agent", "-A", metavar="TEXT", help="Only the bot that this User-Agent names.")
    ] = None,
) -> None:
    """Prints the known bots: name, operator, category and how each is verified, with tabs between.

    Examples: edgeproxy bots list; edgeproxy bots list -A 'Mozilla/5.0 (compatible; Googlebot/2.1)'
    """
    from edgeproxy.bots.catalogue import shipped

    catalogue = shipped()
    bots = catalogue.bots
    if user_agent is not None:
        found = catalogue.claimed(user_agent.encode("utf-8", "surrogateescape"))
        if found is None:
            typer.echo("it names no known bot", err=True)
            raise typer.Exit(1)
        bots = (found,)
    for bot in bots:
        ways = [*(f"networks {name}" for name in bot.ranges), *(f"host *.{name}" for name in bot.dns)]
        ways += [f"signature {agent}" for agent in bot.agents]
        typer.echo("\t".join((bot.name, bot.operator, bot.category, "; ".join(ways) or "not verifiable")))
