"""The tutorial's adapter is short, passes the contract suite, and its package brings its scheme."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "backends" / "your-own.md"
FILE = re.compile(r"^```\w+ title=\"([\w.-]+)\"\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MEMORY = Path("/dev/shm")  # noqa: S108 - where syncing costs nothing: a folder with a name of its own in it

SERVICE = """
import asyncio, sys
from octopus_async import DaoManager, Model

class Book(Model):
    title: str

async def main():
    async with DaoManager.from_config("octopus.toml") as octopus:
        book = Book(title="Emma")
        receipt = await octopus.dao(Book).create(book)
        print(type(octopus.backends["folder"].adapter).__name__, *receipt.outcomes)
    async with DaoManager(["folder:///books"]) as octopus:
        print((await octopus.dao(Book).get_one(book.id)).title)

asyncio.run(main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with the page's files."""
    with TemporaryDirectory(dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None) as name:
        for title, text in FILE.findall(PAGE.read_text(encoding="utf-8")):
            (Path(name) / title).write_text(text, encoding="utf-8")
        yield Path(name)


def run(folder: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def install(folder: Path) -> None:
    """As an installer leaves a distribution: its module, and a dist-info folder beside it."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    name, version = project["name"], project["version"]
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = project["entry-points"].items()
    lines = [line for group, entries in groups for line in (f"[{group}]", *map(" = ".join, entries.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines))


def test_the_adapter_has_under_a_hundred_lines(folder: Path) -> None:
    lines = (folder / "octopus_folder.py").read_text().splitlines()
    assert len(lines) == 99
    assert max(map(len, lines)) <= 110


@pytest.mark.timeout(180)  # a whole suite is one test here
def test_it_passes_the_contract_suite(folder: Path) -> None:
    """Guarded, a part of it: what a guard adds has tests of its own."""
    said = run(
        folder,
        *(
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-o",
            "asyncio_default_fixture_loop_scope=function",
        ),
        *("-k", "not guarded or read or answers or history", "--basetemp", str(folder / "records")),
    )
    passed = re.search(r"^(\d+) passed", said, re.MULTILINE)
    assert passed is not None, said
    assert int(passed[1]) > 290


def test_a_manager_finds_its_scheme_once_its_package_is_installed(folder: Path) -> None:
    install(folder)
    (folder / "books").mkdir()
    (folder / "octopus.toml").write_text('write = ["folder:///books", "memory://"]\n')
    assert run(folder, "-c", SERVICE).split() == ["FolderAdapter", "folder", "memory", "Emma"]
