"""A process of its own that opens a journal of many pending operations, and says what that took.

python -m benchmarks.reopening FOLDER
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from pathlib import Path
from time import perf_counter
from zlib import crc32

from octopus_async import FileJournal
from octopus_async.events import Events

_CHUNK = 1 << 20


def read_whole(folder: Path) -> int:
    """Read every file with one checksum over its bytes."""
    checksum = 0
    for path in _files(folder):
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                checksum = crc32(chunk, checksum)
    return checksum


def read_lines(folder: Path) -> int:
    """Read every file line by line, with a checksum over each."""
    different = 0
    for path in _files(folder):
        with path.open("rb") as file:
            for line in file:
                different ^= crc32(line)
    return different


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.jsonl"))


def _resident() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


async def main(folder: Path) -> None:
    """Measure, and print it as JSON."""
    seconds: dict[str, float] = {}
    for name, read in (("whole", read_whole), ("lines", read_lines)):
        began = perf_counter()
        read(folder)
        seconds[name] = perf_counter() - began
    gc.collect()
    before = _resident()
    journal = FileJournal(folder)
    began = perf_counter()
    await journal.open(Events())
    seconds["open"] = perf_counter() - began
    gc.collect()
    used = _resident() - before
    pending = journal.statistics().pending
    await journal.close()
    print(json.dumps({**seconds, "resident": used, "pending": pending}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
