"""Which adapter a URL's scheme stands for: ours, and those that installed packages register.

Both are entry points, found, loaded and checked in one way. Ours stand in the table below, so that
a source tree that was never installed has them too.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from octopus_async.backend import Adapter
from octopus_async.errors import ConfigurationError
from octopus_async.url import BackendURL

GROUP = "octopus_async.backends"
"""The group of entry points in which a package registers: a scheme, and a class with ``from_url``."""

_PACKAGE = "octopus-async"
_BUILT_IN = {
    "memory": "octopus_async.adapters.memory:MemoryAdapter",
    "shm": "octopus_async.adapters.shm:SharedMemoryAdapter",
    "sqlite": "octopus_async.adapters.sqlite:SQLiteAdapter",
    "memcache": "octopus_async.adapters.memcache:MemcacheAdapter [memcached]",
    "memcached": "octopus_async.adapters.memcache:MemcacheAdapter [memcached]",
    "mysql": "octopus_async.adapters.mysql:MySQLAdapter [mysql]",
    "mariadb": "octopus_async.adapters.mysql:MySQLAdapter [mysql]",
    "mysql+asyncmy": "octopus_async.adapters.mysql:MySQLAdapter [asyncmy]",
    "mariadb+asyncmy": "octopus_async.adapters.mysql:MySQLAdapter [asyncmy]",
    "postgres": "octopus_async.adapters.postgres:PostgresAdapter [postgres]",
    "postgresql": "octopus_async.adapters.postgres:PostgresAdapter [postgres]",
    "mongodb": "octopus_async.adapters.mongodb:MongoDBAdapter [mongodb]",
    "redis": "octopus_async.adapters.redis:RedisAdapter [redis]",
    "rediss": "octopus_async.adapters.redis:RedisAdapter [redis]",
    "valkey": "octopus_async.adapters.redis:RedisAdapter [redis]",
    "valkeys": "octopus_async.adapters.redis:RedisAdapter [redis]",
    "sqs": "octopus_async.adapters.sqs:SqsAdapter [sqs]",
    "rest+http": "octopus_async.adapters.rest:RestAdapter [rest]",
    "rest+https": "octopus_async.adapters.rest:RestAdapter [rest]",
    "sqlalchemy": "octopus_async.adapters.sqlalchemy:SQLAlchemyAdapter [sqlalchemy]",
}
"""Scheme to module, class and extra, as ``[project.entry-points]`` writes them."""


def make_adapter(url: BackendURL, **options: str) -> Adapter:
    """The adapter that ``url`` stands for.

    Parameters:
        url: whose scheme chooses the adapter.
        options: ``name``, where the adapter is to be called other than by its kind.

    Raises:
        ConfigurationError: the scheme is not known, or known twice; what it stands for cannot be
            imported, or is no adapter; its driver is missing; or an option is wrong.
    """
    entry = _find(url.scheme)
    kind = _load(entry)
    try:
        adapter = kind.from_url(url, **options)
    except ModuleNotFoundError as error:  # where the URL chooses the driver
        raise _without_driver(entry, error) from None
    if not isinstance(adapter, Adapter):
        raise _wrong(entry, f"gives a {type(adapter).__name__}, which is no adapter")
    return adapter


def _find(scheme: str) -> EntryPoint:
    """Ours goes first: nobody is given our users' passwords for having been installed."""
    if scheme.startswith("sqlalchemy+"):
        return _own("sqlalchemy")  # what follows is for SQLAlchemy to know
    if scheme in _BUILT_IN:
        return _own(scheme)
    found = _registered().get(scheme, ())
    if not found:
        raise _unknown(scheme)
    if len(found) > 1:
        packages = " and ".join(sorted(_package(entry) for entry in found))
        msg = f"{scheme}:// is registered by {packages}: uninstall all but one"
        raise ConfigurationError(msg)
    return found[0]


def _own(scheme: str) -> EntryPoint:
    return EntryPoint(scheme, _BUILT_IN[scheme], GROUP)


@cache  # looking through all installed packages takes milliseconds, and has one answer in a process
def _registered() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name.lower(), []).append(entry)
    return found


def _unknown(scheme: str) -> ConfigurationError:
    others = {name: entries[0] for name, entries in _registered().items()}
    known = others | {name: _own(name) for name in _BUILT_IN}
    schemes = ", ".join(_listed(entry) for _, entry in sorted(known.items()))
    return ConfigurationError(
        f"no backend has the scheme {scheme}://; known are {schemes}. What stands in brackets is "
        f"installed with it: pip install '{_PACKAGE}[...]'. A package of its own may bring another scheme"
    )


def _load(entry: EntryPoint) -> Any:  # noqa: ANN401 - a class of whoever registered it
    try:
        kind = entry.load()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not entry.extras or missing == entry.module.partition(".")[0]:
            raise _wrong(entry, f"cannot be imported: {error}") from error
        raise _without_driver(entry, error) from None
    except Exception as error:
        raise _wrong(entry, f"cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(getattr(kind, "from_url", None)):
        raise _wrong(entry, f"has no from_url in {entry.value}")
    return kind


def _without_driver(entry: EntryPoint, error: ModuleNotFoundError) -> ConfigurationError:
    missing = (error.name or "").partition(".")[0]
    advice = f"pip install '{_name(entry)}[{entry.extras[0]}]'" if entry.extras else f"pip install {missing}"
    msg = f"{entry.name}:// needs the package {missing}, which is not installed: {advice}"
    return ConfigurationError(msg)


def _wrong(entry: EntryPoint, problem: str) -> ConfigurationError:
    return ConfigurationError(f"{entry.name}:// comes from the package {_package(entry)}, which {problem}")


def _listed(entry: EntryPoint) -> str:
    if entry.dist is not None:
        return f"{entry.name} (of {_name(entry)})"
    return f"{entry.name} [{entry.extras[0]}]" if entry.extras else entry.name


def _package(entry: EntryPoint) -> str:
    return _PACKAGE if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _name(entry: EntryPoint) -> str:
    return _PACKAGE if entry.dist is None else entry.dist.name
