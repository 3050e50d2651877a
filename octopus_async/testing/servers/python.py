"""Servers that are written in Python, and run by the interpreter that runs us, as its user."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import octopus_async
from octopus_async.testing.servers.find import Installation
from octopus_async.testing.servers.folders import spawn
from octopus_async.testing.servers.private import PrivateServer

_PASSED_ON = ("PATH", "HOME", "LANG", "VIRTUAL_ENV")


class PythonServer(PrivateServer):
    """A server whose program is a Python module.

    It runs as we do, even as root: its interpreter may be where only we can read it.
    """

    def _find(self) -> Installation:
        return Installation(Path(sys.executable), f"Python {platform.python_version()}", "this Python")

    def _spawn(self, command: Sequence[str], installation: Installation) -> subprocess.Popen[bytes]:  # noqa: ARG002 - a Python needs no libraries
        return spawn(command, self.folder, self._environment(), as_us=True)

    def _environment(self) -> dict[str, str]:
        """The environment to run in: where to find what we import, and little else."""
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return kept | {"PYTHONPATH": str(Path(octopus_async.__file__).parents[1])}
