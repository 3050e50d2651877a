"""Schemes of URLs: packages register theirs, and each mistake is told with the package it came from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from octopus_async import schemes
from octopus_async.adapters.memory import MemoryAdapter
from octopus_async.config import adapter_for
from octopus_async.errors import ConfigurationError

SECRET = "hunter2"  # noqa: S105 - the secret that is looked for
OURS = """
from octopus_async.adapters.memory import MemoryAdapter

class Mine(MemoryAdapter):
    pass

class Nothing:
    @classmethod
    def from_url(cls, url, *, name="nothing"):
        return cls()
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution: a module, and the dist-info folder that says what it registers."""
    monkeypatch.syspath_prepend(tmp_path)
    schemes._registered.cache_clear()

    def one(package: str, module: str, text: str, *entries: str) -> None:
        (tmp_path / f"{module}.py").write_text(text)
        info = tmp_path / f"{package.replace('-', '_')}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text("\n".join([f"[{schemes.GROUP}]", *entries]))

    yield one
    schemes._registered.cache_clear()
    for name in [name for name in sys.modules if name.startswith("octopus_third")]:
        del sys.modules[name]


def refusal(url: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        adapter_for(url)
    assert SECRET not in str(caught.value) + repr(caught.value.__cause__)
    return str(caught.value)


def test_a_package_registers_its_scheme(install: Install) -> None:
    install("octopus-third", "octopus_third", OURS, "mine+Fast = octopus_third:Mine")
    adapter = adapter_for("MINE+fast://app:hunter2@db?ttl=7")
    assert (type(adapter).__name__, adapter.capabilities.ttl) == ("Mine", 7)
    assert adapter_for("mine+fast://?name=second").name == "second"


def test_an_unknown_scheme_is_told_those_of_packages_too(install: Install) -> None:
    install("octopus-third", "octopus_third", OURS, "mine = octopus_third:Mine")
    assert ", memory, mine (of octopus-third), " in refusal("mime://app:hunter2@db")


def test_no_package_takes_over_a_scheme_of_ours(install: Install) -> None:
    install("octopus-third", "octopus_third", OURS, "memory = octopus_third:Nothing")
    assert type(adapter_for("memory://")) is MemoryAdapter


def test_a_scheme_that_two_packages_register_is_refused(install: Install) -> None:
    install("octopus-third", "octopus_third", OURS, "mine = octopus_third:Mine")
    install("octopus-thirdly", "octopus_thirdly", OURS, "mine = octopus_thirdly:Mine")
    assert refusal("mine://app:hunter2@db") == (
        "mine:// is registered by octopus-third 2.5 and octopus-thirdly 2.5: uninstall all but one"
    )


@pytest.mark.parametrize(
    ("text", "entry", "problem"),
    [
        (
            "import octopus_absent",
            "octopus_third:Mine",
            "cannot be imported: No module named 'octopus_absent'",
        ),
        ("1 / 0", "octopus_third:Mine", "cannot be imported: ZeroDivisionError: division by zero"),
        ("Mine = (", "octopus_third:Mine", "cannot be imported: SyntaxError: "),
        ("", "octopus_third:Mine", "cannot be imported: AttributeError: "),
        ("", "octopus_thirdly:Mine", "cannot be imported: No module named 'octopus_thirdly'"),
        ("", "octopus_third:", "cannot be imported: "),
        ("Mine = 7", "octopus_third:Mine", "has no from_url in octopus_third:Mine"),
        (OURS, "octopus_third:Nothing", "gives a Nothing, which is no adapter"),
    ],
    ids=lambda it: it.strip().splitlines()[0] if it.strip() else "empty",
)
def test_what_a_package_does_wrong_is_told_with_its_name(
    install: Install, text: str, entry: str, problem: str
) -> None:
    install("octopus-third", "octopus_third", text, f"mine = {entry}")
    start = "mine:// comes from the package octopus-third 2.5, which "
    assert refusal("mine://app:hunter2@db").startswith(start + problem)


def test_a_missing_extra_of_a_package_is_told(install: Install) -> None:
    install(
        "octopus-third", "octopus_third", "import octopus_absent.driver", "mine = octopus_third:Mine [fast]"
    )
    assert refusal("mine://app:hunter2@db") == (
        "mine:// needs the package octopus_absent, which is not installed: pip install 'octopus-third[fast]'"
    )
