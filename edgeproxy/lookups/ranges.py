# Published networks are downloaded here, by a command and never by a worker: known URLs only, and a bad answer changes no file.
"""`fetch_all(folder, sources)`: one file a source, put in place by renaming, so that no edge reads half of one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from edgeproxy.bots.ranges import MAX_FILE, is_name, parse
from edgeproxy.lookups.answers import NotFetched
from edgeproxy.lookups.https import Fetcher


class Outcome(NamedTuple):
    """Of one source. `problem`: why its file is as it was, "" if it is new."""

    name: str
    networks: int
    problem: str


async def fetch_all(folder: Path, sources: Mapping[str, str], fetcher: Fetcher | None = None) -> list[Outcome]:
    """Fetch, a few at a time.

    Args:
        sources: name → URL; the file is `NAME.json`.
    """
    used = fetcher or Fetcher()
    try:
        return list(await asyncio.gather(*(_fetch(folder, name, url, used) for name, url in sorted(sources.items()))))
    finally:
        if fetcher is None:
            await used.close()


async def _fetch(folder: Path, name: str, url: str, fetcher: Fetcher) -> Outcome:
    if not is_name(name):
        return Outcome(name, 0, "is no name of a file")
    try:
        body = (await fetcher.get(url, MAX_FILE)).body
    except NotFetched as error:
        return Outcome(name, 0, f"{url} {error}")
    parsed = parse(body)
    if not parsed.ranges:
        return Outcome(name, 0, f"{url} {parsed.problems[0]}")
    beside = folder / f".{name}.new"
    try:
        beside.write_bytes(body)
        os.replace(beside, folder / f"{name}.json")  # noqa: PTH105  as everywhere else here
    except OSError as error:
        return Outcome(name, 0, f"cannot be written: {error.strerror or error}")
    return Outcome(name, len(parsed.ranges), "")
