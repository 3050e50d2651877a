"""Every example in the README and in docs/ runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"^```(python|toml)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"title=\"([\w.-]+)\"")


def examples() -> list[tuple[str, str, str, str]]:
    """Page, language, what stands behind the language, text."""
    return [
        (str(page.relative_to(ROOT)), *match)
        for page in PAGES
        for match in BLOCK.findall(page.read_text(encoding="utf-8"))
    ]


def test_the_pages_hold_examples() -> None:
    assert {page for page, *_ in examples()} >= {"README.md", "docs/configuration.md"}


@pytest.mark.parametrize("page", sorted({page for page, *_ in examples()}))
def test_a_pages_examples_run_in_order(page: str, tmp_path: Path) -> None:
    """Titled blocks are files beside the examples; the others are programs of their own, run in turn."""
    for number, (_, language, info, text) in enumerate(
        example for example in examples() if example[0] == page
    ):
        titled = FILE.search(info)
        if titled:
            (tmp_path / titled[1]).write_text(text, encoding="utf-8")
            continue
        assert language == "python", f"{page}: a {language} block needs a title"
        program = tmp_path / f"example_{number}.py"
        program.write_text(text, encoding="utf-8")
        ended = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", str(program)],
            cwd=tmp_path,
            env={"OCTOPUS_SERVERS_DIR": str(ROOT / ".servers")}
            | os.environ
            | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "DB_PASSWORD": "not so secret"},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert ended.returncode == 0, f"{page}:\n{text}\n{ended.stderr}"
