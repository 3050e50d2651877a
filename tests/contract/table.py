"""``--table FILE``: which adapter passed which section of the contract, and what it can do, as a page.

What is told of an adapter travels in the reports of its tests, from whichever process ran them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from octopus_async.backend import Adapter, Capabilities
from octopus_async.guard import Guard

SECTIONS = {
    "units": "unit",
    "cancellation": "cancel|concurrent_calls",
    "batches": "batch|order_of_the_keys",
    "keys": "lookalike|different_ids|ids_of_other|share_ids",
    "values": "value_comes|nulls|fresh_objects",
    "leases": "fill|lease|invalid|retract|a_look_leaves",
    "scans": "scan|a_look_finds",
    "opening": "server|opening|closed|prepar|ping|probe",
    "versions": "",
}
"""Each section of the suite, and what the names of its tests have; the first that fits."""

_TOLD = "contract"
_FIXTURES = (
    "adapter",
    "unreachable",
    "bare",
    "nowhere",
)  # the first that a test has is what it is of


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="write the table of adapters and contract sections there")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and "test_contract.py" in item.nodeid:
        report.user_properties.append((_TOLD, told_by(item)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    path = terminalreporter.config.getoption("--table")
    if path is not None:
        told = [
            {"passed": report.passed, **values}
            for reports in terminalreporter.stats.values()
            for report in reports
            for name, values in getattr(report, "user_properties", ())
            if name == _TOLD
        ]
        path.write_text(page(told), encoding="utf-8")


def told_by(item: pytest.Item) -> dict[str, Any]:
    """Of which adapter and section a test is, and what the adapter says of itself."""
    arguments: Mapping[str, Any] = getattr(item, "funcargs", {})
    adapter: Adapter = next(arguments[name] for name in _FIXTURES if name in arguments)
    parameters: Mapping[str, str] = getattr(getattr(item, "callspec", None), "params", {})
    row = parameters.get("bare") or parameters.get("nowhere") or adapter.name
    return {
        "row": row.removesuffix("_nowhere").replace("_", " "),
        "guarded": isinstance(adapter, Guard),
        "section": section_of(item.name),
        "capabilities": asdict(adapter.capabilities),
    }


def section_of(test: str) -> str:
    """The section of a test, by its name."""
    return next(
        section for section, part in SECTIONS.items() if re.search(part, test.split("[", maxsplit=1)[0])
    )


def page(told: Iterable[Mapping[str, Any]]) -> str:
    """Both tables, as a page of the documentation."""
    passed, ran = defaultdict[str, Counter[str]](Counter), defaultdict[str, Counter[str]](Counter)
    capabilities: dict[str, Capabilities] = {}
    for test in told:
        row = test["row"] + (", guarded" if test["guarded"] else "")
        ran[row][test["section"]] += 1
        passed[row][test["section"]] += test["passed"]
        capabilities[test["row"]] = Capabilities(**test["capabilities"])
    return _HEAD.format(
        passed=_table(
            ["adapter", *SECTIONS],
            [[row, *(_share(passed[row][it], ran[row][it]) for it in SECTIONS)] for row in sorted(ran)],
        ),
        capabilities=_table(_CAPABILITIES, [[row, *_can(it)] for row, it in sorted(capabilities.items())]),
    )


def _share(passed: int, ran: int) -> str:
    if not ran:
        return "-"
    return str(ran) if passed == ran else f"{passed} of {ran}"


_CAPABILITIES = (
    *("adapter", "keeps", "a batch is one transaction", "keys a read", "operations a write"),
    *("reads at once", "writes at once", "forgets after", "scan"),
)


def _can(it: Capabilities) -> list[str]:
    return [
        "for good" if it.durable else "may forget",
        "yes" if it.transactional else "no",
        str(it.read_batch) if it.readable else "-",
        str(it.write_batch),
        str(it.read_concurrency) if it.readable else "-",
        str(it.write_concurrency),
        "-" if it.ttl is None else f"{it.ttl:g} s",
        "yes" if it.scan else "no",
    ]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_HEAD = """# Adapters, and what each was seen to keep of the contract

Made from a test run: `pytest tests/contract/test_contract.py --table docs/backends/README.md`. The suite is
public (`octopus_async.testing.contract`); each adapter ran it on its real server, bare and behind its guard.

## Tests passed, by section

{passed}

A section is a dash where it does not concern the adapter: units are of what has transactions, leases of
caches, scans of what keeps records for good. *Opening* includes what happens where no server is. *Versions*
holds every cell of the table of operations over stored states, conditions, tombstones and random histories.

## Capabilities

{capabilities}

Batches and concurrency are the defaults, which can be changed where an adapter's page says so.
"""
