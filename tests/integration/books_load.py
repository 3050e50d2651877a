"""A client of the books service: loads it over HTTP, and prints what it was promised.

Run as a process of its own: ``python books_load.py URL SECONDS WORKERS [PATIENCE]``. Prints one JSON
object: ``books`` (id to the title promised last, null for a deleted one), ``uncertain`` (ids whose last
request got no clear answer), ``statuses`` (counts), ``mismatches`` (reads that contradicted), ``behind``
(for how many seconds a read contradicted, that did not any more when repeated within the patience).
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx


@dataclass
class Ledger:
    """What the service promised."""

    books: dict[str, str | None] = field(default_factory=dict)
    uncertain: set[str] = field(default_factory=set)
    statuses: Counter[str] = field(default_factory=Counter)
    mismatches: list[str] = field(default_factory=list)
    behind: list[float] = field(default_factory=list)
    patience: float = 0.0


async def call(
    client: httpx.AsyncClient, ledger: Ledger, method: str, path: str, title: str | None = None
) -> httpx.Response | None:
    """One request; None if there was no answer."""
    try:
        response = await client.request(method, path, json={"title": title} if title else None)
    except httpx.HTTPError as error:
        ledger.statuses[type(error).__name__] += 1
        return None
    ledger.statuses[f"{method} {response.status_code}"] += 1
    return response


async def worker(client: httpx.AsyncClient, ledger: Ledger, until: float, chance: random.Random) -> None:
    """Create, read, change and delete books of its own until the time is over."""
    while time.monotonic() < until:
        title = f"book {chance.getrandbits(60)}"
        created = await call(client, ledger, "POST", "/books", title)
        if created is None or created.status_code != 201:
            continue
        path = f"/books/{created.json()['id']}"
        ledger.books[path] = title
        if chance.random() < 0.5:
            await change(client, ledger, path, f"changed {chance.getrandbits(60)}")
        await look(client, ledger, path)
        if chance.random() < 0.25:
            await remove(client, ledger, path)
            await look(client, ledger, path)


async def change(client: httpx.AsyncClient, ledger: Ledger, path: str, title: str) -> None:
    """Change a book, and note what was promised."""
    changed = await call(client, ledger, "PUT", path, title)
    if changed is not None and changed.is_success:
        ledger.books[path] = title
    else:
        ledger.uncertain.add(path)


async def remove(client: httpx.AsyncClient, ledger: Ledger, path: str) -> None:
    """Delete a book, and note what was promised."""
    removed = await call(client, ledger, "DELETE", path)
    if removed is not None and removed.is_success:
        ledger.books[path] = None
    else:
        ledger.uncertain.add(path)


async def look(client: httpx.AsyncClient, ledger: Ledger, path: str) -> None:
    """Read a book until it is what was promised, as long as the patience lasts."""
    began, behind = time.monotonic(), 0.0
    while (wrong := await contradiction(client, ledger, path)) is not None:
        behind = time.monotonic() - began
        if behind >= ledger.patience:
            ledger.mismatches.append(wrong)
            return
        await asyncio.sleep(0.01)
    if behind:
        ledger.behind.append(round(behind, 3))


async def contradiction(client: httpx.AsyncClient, ledger: Ledger, path: str) -> str | None:
    """Read a book, and compare it with what was promised."""
    seen = await call(client, ledger, "GET", path)
    if seen is None or path in ledger.uncertain or seen.status_code == 503:
        return None
    title = seen.json()["title"] if seen.status_code == 200 else None
    promised = ledger.books[path]
    return None if title == promised else f"{path}: promised {promised!r}, read {title!r}"


async def main(url: str, seconds: float, workers: int, patience: float = 0.0) -> None:
    """Load the service, and print the ledger."""
    ledger = Ledger(patience=patience)
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=workers)
    async with httpx.AsyncClient(base_url=url, timeout=15, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(worker(client, ledger, until, random.Random(seed)) for seed in range(workers)))
    print(json.dumps({**vars(ledger), "uncertain": sorted(ledger.uncertain)}))


if __name__ == "__main__":
    url_, seconds_, workers_, *patience_ = sys.argv[1:]
    asyncio.run(main(url_, float(seconds_), int(workers_), *map(float, patience_)))
