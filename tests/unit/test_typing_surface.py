"""The file that uses the public surface passes both type checkers, without an ignore, and really checks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SURFACE = ROOT / "tests" / "typing" / "surface.py"
CHECKERS = {
    "mypy": ["mypy", "--strict", "--no-error-summary", "--no-pretty"],
    "pyright": ["pyright"],
}


WRONG = """\
from octopus_async import Dao, KeyedModel, Model
class Book(Model):
    title: str
class User(KeyedModel):
    id: str
async def misuse(books: Dao[Book]) -> str:
    await books.create(User(id="x"))
    return (await books.read("x")).title
"""


def test_the_surface_is_checked_without_an_ignore() -> None:
    code = SURFACE.read_text(encoding="utf-8").partition('"""\n')[2]
    assert "ignore" not in code
    assert "cast(" not in code


@pytest.mark.timeout(120)
@pytest.mark.parametrize("checker", CHECKERS)
def test_right_uses_of_the_public_surface_pass_strict_checking_and_wrong_ones_do_not(
    checker: str, tmp_path: Path
) -> None:
    pytest.importorskip(checker, reason=f"{checker} is not installed; nox -s typecheck has it")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG, encoding="utf-8")
    command = [sys.executable, "-m", *CHECKERS[checker], str(SURFACE), str(wrong)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    errors = [line for line in run.stdout.splitlines() if "error" in line and ".py:" in line]
    places = [re.sub(r".*?(\w+\.py:\d+).*", r"\1", line) for line in errors]
    assert (run.returncode, places) == (1, ["wrong.py:7", "wrong.py:8"]), run.stdout + run.stderr
