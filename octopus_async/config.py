"""Settings of a manager, from arguments or a TOML file, and adapters from URLs: one typed object."""

from __future__ import annotations

import os
import re
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast

from octopus_async.backend import Adapter, Journal
from octopus_async.errors import ConfigurationError
from octopus_async.guard import GuardPolicy
from octopus_async.schemes import make_adapter
from octopus_async.strategies.plan import Acknowledge, Order
from octopus_async.strategies.read import Cascade, Hedge, Race, ReadStrategy
from octopus_async.url import BackendURL

E = TypeVar("E", bound=Enum)
_DAY = 24 * 3600.0
_OF_CACHES = GuardPolicy(timeout=0.5)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Routing:
    """Where one model goes, where that differs from the manager's defaults.

    Attributes:
        write: names of the backends to write to, the primary first; empty for the default.
        read: how to read it; None for the default.
        order: in which order writes ask; None for the default.
        acknowledge: when a write is acknowledged; None for the default.
    """

    write: tuple[str, ...] = ()
    read: ReadStrategy | None = None
    order: Order | None = None
    acknowledge: Acknowledge | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a manager is told. Times are seconds.

    Attributes:
        write: backends that are written to, the primary first: URLs or adapters.
        backends: further backends, for reads and for the routings of models.
        read: how to read; None for the written caches, in order, then the primary.
        journal: a folder, a journal, or None for none: then an outage refuses writes.
        sink: a queue that is given what is journalled as well, for the machine that never comes back.
        routings: what differs for single models, by their names.
        order: in which order writes ask the backends.
        acknowledge: when a write is acknowledged.
        timeout: the deadline of an operation that is not given one.
        close_timeout: how long closing waits for what is under way.
        create_tables: whether tables that do not exist are created at a model's first use.
        strict: whether opening fails when a backend cannot be reached.
        guard: how backends are guarded; None for the defaults, with which a call of a cache may
            take half as long as one of a database: it is asked before the database.
        guards: how single backends are guarded, by their names.
        retention: for how long tombstones are kept, and entries of the journal replayed.
        adopt_every: how often the journal's folder is searched for those of dead processes.
        late_writes: for how long a write may still land in a primary that answers again, after its
            sender gave it up or died: replicas are compared with the primary once more after it.
        max_writes: how many writes may be under way at the same time; what is more is refused.
        wall: seconds since 1970.
    """

    write: Sequence[str | Adapter] = field(repr=False)  # URLs hold passwords
    backends: Sequence[str | Adapter] = field(default=(), repr=False)
    read: ReadStrategy | None = None
    journal: str | Path | Journal | None = None
    sink: str | Adapter | None = field(default=None, repr=False)
    routings: Mapping[str, Routing] = field(default_factory=dict)
    order: Order = Order.AUTO
    acknowledge: Acknowledge = Acknowledge.PRIMARY
    timeout: float = 5.0
    close_timeout: float = 5.0
    create_tables: bool = False
    strict: bool = False
    guard: GuardPolicy | None = None
    guards: Mapping[str, GuardPolicy] = field(default_factory=dict)
    retention: float = 30 * _DAY
    adopt_every: float = 5.0
    late_writes: float = 60.0
    max_writes: int = 100_000
    wall: Callable[[], float] = time.time

    def guard_of(self, adapter: Adapter) -> GuardPolicy:
        """How that backend is guarded."""
        default = GuardPolicy() if adapter.capabilities.durable else _OF_CACHES
        return self.guards.get(adapter.name) or self.guard or default

    def __post_init__(self) -> None:
        if not self.write:
            msg = "a manager needs at least one backend to write to: DaoManager(write=['sqlite:///shop.db'])"
            raise ConfigurationError(msg)
        if isinstance(self.write, str) or isinstance(self.backends, str):
            msg = "write and backends are lists of URLs or adapters: write=['sqlite:///shop.db']"
            raise ConfigurationError(msg)
        if self.sink is not None and self.journal is None:
            msg = "a sink is given what is journalled: it needs a journal"
            raise ConfigurationError(msg)
        for source in (*self.write, *self.backends):
            if not isinstance(source, str) and not hasattr(source, "capabilities"):
                msg = f"a backend is a URL or an adapter, not a {type(source).__name__}"
                raise ConfigurationError(msg)
        for name in ("timeout", "close_timeout", "retention", "adopt_every", "late_writes"):
            seconds = getattr(self, name)
            if not isinstance(seconds, int | float) or not seconds > 0:
                msg = f"{name} is a number of seconds above 0, not {seconds!r}"
                raise ConfigurationError(msg)
        if self.max_writes < 1:
            msg = f"max_writes is a whole number of at least 1, not {self.max_writes!r}"
            raise ConfigurationError(msg)


def adapter_for(source: str | Adapter) -> Adapter:
    """The adapter of a URL; an adapter object is itself.

    The option ``name`` of any URL says how the backend is called, where it is not by its kind.

    Raises:
        ConfigurationError: the scheme is not known, an option is wrong, or the driver is missing.
    """
    if not isinstance(source, str):
        return source
    url = BackendURL.parse(source)
    name = url.options.get("name")
    return make_adapter(url) if name is None else make_adapter(_without_name(url), name=name)


def _without_name(url: BackendURL) -> BackendURL:
    name = url.options["name"]
    if _NAME.fullmatch(name) is None:
        problem = "has 1 to 64 letters, digits, dots, dashes or underscores"
        msg = f"{url}: option 'name' {problem}, not {name[:40]!r}"
        raise ConfigurationError(msg)
    return replace(url, options={option: text for option, text in url.options.items() if option != "name"})


def settings_from_toml(path: str | Path) -> Settings:
    """Read settings from a TOML file; ``${NAME}`` in its texts is a variable of the environment.

    Raises:
        ConfigurationError: the file cannot be read, or says what is not understood.
    """
    try:
        with Path(path).open("rb") as file:
            table = tomllib.load(file)
    except (OSError, RecursionError, ValueError) as error:
        msg = f"{path}: cannot be read as TOML: {error}"
        raise ConfigurationError(msg) from None
    return _Table(_expanded(table, path), str(path)).settings()


class _Table:
    """A table of the file, whose names are taken one by one; what is left over is a mistake."""

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        self._table = dict(table)
        self._where = where

    def settings(self) -> Settings:
        chosen: dict[str, Any] = {
            "write": tuple(self._texts("write")),
            "backends": tuple(self._texts("backends")),
            "read": self._strategy("read"),
            "journal": self._take("journal", str, default=None),
            "sink": self._take("sink", str, default=None),
            "order": self._choice("order", Order, Order.AUTO),
            "acknowledge": self._choice("acknowledge", Acknowledge, Acknowledge.PRIMARY),
            "create_tables": self._take("create_tables", bool, default=False),
            "strict": self._take("strict", bool, default=False),
            "routings": {name: part.routing() for name, part in self._parts("models").items()},
        }
        for name in ("timeout", "close_timeout", "retention", "adopt_every", "late_writes"):
            seconds = self._seconds(name)
            if seconds is not None:
                chosen[name] = seconds
        max_writes = self._take("max_writes", int, default=None)
        if max_writes is not None:
            chosen["max_writes"] = max_writes
        self._finish()
        return Settings(**chosen)

    def routing(self) -> Routing:
        routing = Routing(
            write=tuple(self._texts("write")),
            read=self._strategy("read"),
            order=self._choice("order", Order, None),
            acknowledge=self._choice("acknowledge", Acknowledge, None),
        )
        self._finish()
        return routing

    def _strategy(self, name: str) -> ReadStrategy | None:
        table = self._take(name, dict, default=None)
        if table is None:
            return None
        part = _Table(table, f"{self._where}: {name}")
        kind = part._take("strategy", str, default="cascade")
        names = part._texts("backends")
        delay = part._seconds("delay")
        part._finish()
        if kind == "hedge":
            return Hedge(*names) if delay is None else Hedge(*names, delay=delay)
        if kind not in ("cascade", "race") or delay is not None:
            raise self._wrong(f"{name}: strategy is cascade, race or hedge, and delay is for hedge")
        return Cascade(*names) if kind == "cascade" else Race(*names)

    def _seconds(self, name: str) -> float | None:
        seconds = self._take(name, (int, float), default=None)
        try:
            return None if seconds is None else float(seconds)
        except OverflowError:
            raise self._wrong(f"{name} is past any number of seconds") from None

    def _parts(self, name: str) -> dict[str, _Table]:
        parts = self._take(name, dict, default={})
        for key, part in parts.items():
            if not isinstance(part, dict):
                raise self._wrong(f"{name}.{key} is a table")
        return {key: _Table(part, f"{self._where}: {name}.{key}") for key, part in parts.items()}

    def _texts(self, name: str) -> list[str]:
        texts = self._take(name, list, default=[])
        if not all(isinstance(text, str) for text in texts):
            raise self._wrong(f"{name} is a list of texts")
        return cast("list[str]", texts)

    def _choice(self, name: str, choices: type[E], default: E | None) -> E | None:
        text = self._take(name, str, default=None)
        if text is None:
            return default
        try:
            return choices(text.replace("_", " "))
        except ValueError:
            known = ", ".join(choice.value for choice in choices)
            raise self._wrong(f"{name} is one of {known}, not {text!r}") from None

    def _take(self, name: str, kind: Any, *, default: Any) -> Any:  # noqa: ANN401 - what TOML holds
        value = self._table.pop(name, default)
        wrong_bool = isinstance(value, bool) and kind is not bool
        if value is not default and (wrong_bool or not isinstance(value, kind)):
            raise self._wrong(f"{name} has the wrong type: {type(value).__name__}")
        return value

    def _finish(self) -> None:
        if self._table:
            raise self._wrong(f"{min(self._table)!r} is not a setting")

    def _wrong(self, problem: str) -> ConfigurationError:
        return ConfigurationError(f"{self._where}: {problem}")


def _expanded(value: Any, path: str | Path) -> Any:  # noqa: ANN401 - what TOML holds
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _variable(match[1], path), value)
    if isinstance(value, list):
        return [_expanded(item, path) for item in value]
    if isinstance(value, dict):
        return {name: _expanded(item, path) for name, item in value.items()}
    return value


def _variable(name: str, path: str | Path) -> str:
    value = os.environ.get(name)
    if value is None:
        msg = f"{path}: the environment variable {name} is not set"
        raise ConfigurationError(msg)
    return value
