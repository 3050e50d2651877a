"""What commands share that look at a service: its configuration, its models, what it owes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypeAlias

import typer

from octopus_async.backend import Adapter
from octopus_async.dao import Dao, model_of
from octopus_async.errors import ConfigurationError
from octopus_async.events import Event, ReplayProgressed, ReplayStarted
from octopus_async.manager import Statistics
from octopus_async.mapper import schema_of
from octopus_async.model import KeyedModel, Model
from octopus_async.url import BackendURL

Kind: TypeAlias = "type[KeyedModel | Dao[Any]]"
Config = Annotated[Path, typer.Argument(help="The service's TOML file, as for DaoManager.from_config.")]


def kinds_in(modules: Iterable[str]) -> list[Kind]:
    """The models and Daos that modules define or import, in the order in which they stand there.

    Raises:
        ConfigurationError: a module cannot be imported, or has none.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")  # as for `python -m`: a service's models lie where it is started
    kinds: dict[Kind, None] = {}
    for name in modules:
        found = _kinds_of(_imported(name))
        if not found:
            raise ConfigurationError(f"--models {name}: the module has no Model and no Dao")
        kinds.update(dict.fromkeys(found))
    return list(kinds)


def _imported(name: str) -> ModuleType:
    try:
        return import_module(name)
    except Exception as error:
        raise ConfigurationError(f"--models {name}: {type(error).__name__}: {error}") from error


def _kinds_of(module: ModuleType) -> list[Kind]:
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, KeyedModel | Dao)
        and value not in (KeyedModel, Model, Dao)
        and (issubclass(value, Dao) or "id" in value.model_fields)
    ]


def absent_file(source: str | Adapter) -> str | None:
    """What is wrong with a database's file that is not there: asking for it would make it."""
    url = BackendURL.parse(source) if isinstance(source, str) else None
    if url is None or url.scheme != "sqlite" or Path(url.path).exists():
        return None
    return f"there is no file {url.path}"


def model_name(kind: Kind) -> str:
    """The name, in the journal, of a model or of a Dao's model."""
    return schema_of(model_of(kind) if issubclass(kind, Dao) else kind).model


def owed(statistics: Statistics) -> int:
    """How many operations the journal, and how many keys the caches, are owed."""
    pending = statistics.journal.pending if statistics.journal is not None else 0
    return pending + sum(statistics.behind.values())


class ReplayCounter:
    """A listener that counts what was replayed: events say it anew for each replay."""

    def __init__(self) -> None:
        self.total = 0
        self._running: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, ReplayStarted):
            self._running[event.backend] = 0
        elif isinstance(event, ReplayProgressed):
            self.total += event.applied - self._running.get(event.backend, 0)
            self._running[event.backend] = event.applied
