"""Runs the families that are asked for, on each event loop, and writes table, JSON and pictures."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import uvloop

from benchmarks import __doc__ as about
from benchmarks import backlog, floor, outage, reads, replay, server, writes, ycsb
from benchmarks.plots import draw
from benchmarks.rig import FULL, QUICK, TINY, Rig, Sizes
from benchmarks.rows import Row, heading, load, markdown, save
from octopus_async.testing.servers import MariaDBServer, MemcachedServer

FAMILIES: dict[str, Callable[[Rig], Awaitable[None]]] = {
    "floor": floor.run,
    "writes": writes.run,
    "reads": reads.run,
    "server": server.run,
    "ycsb": ycsb.run,
    "outage": outage.run,
    "replay": replay.run,
    "backlog": backlog.run,
}
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure; gives the rows."""
    options = _options(arguments)
    if options.show:
        rows = load(options.show)
        print(markdown(rows))
    else:
        sizes = TINY if options.tiny else QUICK if options.quick else FULL
        rows = []
        # Breakers are forced again and again, which is no news.
        logging.getLogger("octopus_async").setLevel(logging.ERROR)
        print(heading())
        for name in options.loop or LOOPS:
            with asyncio.Runner(loop_factory=LOOPS[name]) as runner:
                rows += runner.run(measure(options.families or list(FAMILIES), name, sizes))
    if options.json is not None:
        save(rows, options.json)
    for path in draw(rows, options.plots) if not options.tiny else []:
        print(f"drawn: {path}")
    judged = [row for row in rows if row.goal is not None]
    print(f"{sum(row.met is True for row in judged)} of {len(judged)} goals met")
    return rows


async def measure(families: Sequence[str], loop: str, sizes: Sizes) -> list[Row]:
    """Measure some families on the running loop, with servers of its own."""
    # Beside the checkout, as what is in /tmp may lie in memory, where nothing has to be synced.
    with tempfile.TemporaryDirectory(prefix=".benchmarks-", dir=Path.cwd()) as folder:
        async with MariaDBServer() as mariadb, MemcachedServer() as memcached:
            rig = Rig(sizes, loop, Path(folder), memcached, mariadb)
            gc.freeze()  # what was imported need not be looked through before each round
            try:
                for family in families:
                    await FAMILIES[family](rig)
            finally:
                gc.unfreeze()
            return rig.rows


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(FAMILIES)}; or all")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="less than two minutes, and less exact")
    size.add_argument("--tiny", action="store_true", help="only to see that everything runs")
    parser.add_argument("--loop", action="append", choices=list(LOOPS), help="one event loop; or all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument(
        "--plots", type=Path, metavar="FOLDER", default=Path(".benchmarks"), help="draw there"
    )
    parser.add_argument(
        "--show", type=Path, nargs="+", metavar="FILE", help="measure nothing, show these rows"
    )
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.families) - set(FAMILIES))
    if unknown:
        parser.error(f"there is no family {unknown[0]!r}, but {', '.join(FAMILIES)}")
    return options


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
