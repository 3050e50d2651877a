"""Development sessions: `nox --list` names them, `nox -s NAME -- ARGUMENTS` runs one."""

from __future__ import annotations

import nox

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)

nox.needs_version = ">=2025.5"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True  # what was not tested must not look as if it had passed
nox.options.sessions = ["lint", "typecheck", "tests"]


def _install(session: nox.Session, *groups: str) -> None:
    session.install("--editable", ".[all]", *nox.project.dependency_groups(PYPROJECT, *groups))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests; arguments go to pytest."""
    _install(session, "test")
    session.run("pytest", "--numprocesses=auto", "--dist=worksteal", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and layers."""
    _install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-logo")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check types with mypy and pyright."""
    _install(session, "dev")
    session.run("mypy")
    session.run("pyright")


@nox.session
def drill(session: nox.Session) -> None:
    """Take a database away under load; arguments go to `octopus drill`."""
    _install(session)
    session.run("octopus", "drill", *session.posargs)


@nox.session
def simulate(session: nox.Session) -> None:
    """Run simulated outages: how many seeds (default 10000), then further arguments."""
    _install(session)
    count, *arguments = session.posargs or ["10000"]
    session.run("python", "-m", "octopus_async.testing.simulation", "--count", count, *arguments)


@nox.session
def mutants(session: nox.Session) -> None:
    """Plant bugs and see each found; arguments are names of mutants, and options."""
    _install(session, "test")
    session.run("python", "-m", "octopus_async.testing.mutants", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Do everything to real servers that can be done to them; arguments go to pytest, as `-k memcached`."""
    _install(session, "test")
    session.run("pytest", "tests/chaos", "--matrix", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Keep servers failing under load: for how many seconds (default 3600), then --seed N, --json FILE."""
    _install(session, "test")
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session(python=PYTHONS[0])  # of all versions, the oldest is the first that atheris has a wheel for
def fuzz(session: nox.Session) -> None:
    """Feed parsers and stores what is hostile: seconds for each parser (default 60), then its name."""
    seconds, *names = session.posargs or ["60"]
    _install(session, "test", "fuzz")
    session.run("python", "-m", "tests.fuzz", seconds, *names)
    factor = str(max(2, int(float(seconds)) // 3))
    session.run("pytest", "tests/fuzz", "--timeout=3600", env={"OCTOPUS_FUZZ_FACTOR": factor})


@nox.session
def crash(session: nox.Session) -> None:
    """Kill and cut the power of the journal: how many processes are killed (default 10000)."""
    _install(session, "test")
    session.run("python", "-m", "tests.crash", *session.posargs)


@nox.session
def shm(session: nox.Session) -> None:
    """Kill processes that write to a shared memory cache: how many (default 1000)."""
    _install(session, "test")
    count = {"OCTOPUS_SHM_KILLS": (session.posargs or ["1000"])[0]}
    session.run("pytest", "tests/adversity/test_shm_hazards.py", "-k", "killed_at_random", env=count)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure the library beside the drivers by hand; arguments: --quick, --json FILE, names of families."""
    _install(session, "benchmarks")
    session.run("python", "-m", "benchmarks", *session.posargs)
