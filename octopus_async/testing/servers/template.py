"""Data folders as they are before the first start, made once for each version and kept for copying."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from octopus_async.testing.servers.find import Installation, locked_folder, servers_folder
from octopus_async.testing.servers.folders import ServerFolder


def template(
    installation: Installation, name: str, recipe: str, make: Callable[[Installation, ServerFolder], Path]
) -> Path:
    """The folder to copy; anybody may read it. Runs on a thread.

    Args:
        installation: whose version it is made for.
        name: its name, without the version.
        recipe: whatever else it depends on.
        make: makes it in a folder of the user that servers run as, and says where.

    Raises:
        ConfigurationError: it can't be kept.
        BackendFailed: it can't be made.
    """
    version = hashlib.sha256(f"{installation.version}\n{recipe}".encode()).hexdigest()[:16]
    kept = servers_folder() / f"{name}-{version}"
    if not kept.is_dir():
        with locked_folder():
            if not kept.is_dir():
                _make(installation, make, kept)
    return kept


def _make(
    installation: Installation, make: Callable[[Installation, ServerFolder], Path], target: Path
) -> None:
    workshop = ServerFolder()
    try:
        _keep(make(installation, workshop), target)
    finally:
        workshop.remove()


def _keep(data: Path, target: Path) -> None:
    half_done = target.with_suffix(".new")
    shutil.rmtree(half_done, ignore_errors=True)
    shutil.copytree(data, half_done)
    for path in (half_done, *half_done.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # another user's server is copied from it, too
    half_done.rename(target)
