"""Run a soak: ``python -m tests.soak [SECONDS] [--seed N] [--json FILE]``; an hour where nothing is said."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.chaos.rig import Room
from tests.soak.soak import Soak


def main() -> int:
    """Soak, print what came of it, and say by the exit status whether all is well."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    room = Room()
    try:
        with tempfile.TemporaryDirectory(prefix="octopus-soak-") as folder:
            course = asyncio.run(Soak(room, Path(folder), options.seconds, options.seed).run())
    finally:
        room.close()
    print(*course.table(), sep="\n")
    if options.json is not None:
        options.json.write_text(json.dumps(course.as_json(), indent=1))
    for kind, examples in course.wrong.items():
        print(f"{kind}:", *examples, sep="\n  ")
    growing = [trend.name for trend in course.trends if not trend.flat]
    if growing:
        print("not flat:", ", ".join(growing))
    return 1 if growing or course.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
