"""Keeps an application's data available while the databases behind it fail.

Declare a `Model`, open a `DaoManager` with ``async with``, and await the `Dao` that it hands out.
"""

from octopus_async.backend import Adapter, CacheAdapter, Capabilities, DeadLetter, Journal, JournalStatistics
from octopus_async.bulk import Result, Results, each
from octopus_async.config import Routing, Settings
from octopus_async.copying import CopyProgress
from octopus_async.dao import Dao
from octopus_async.errors import (
    BackendFailed,
    BackendRefused,
    BackendTimeout,
    CircuitOpen,
    ConfigurationError,
    ConstraintViolated,
    DuplicateRecord,
    InvalidRecord,
    JournalCorrupt,
    JournalError,
    JournalFull,
    JournalLocked,
    ManagerClosed,
    OctopusError,
    OperationNotSupported,
    ReadUnavailable,
    RecordNotFound,
    RecordRejected,
    SchemaMismatch,
    SessionEnded,
    StaleRecord,
    Unavailable,
    WriteUnavailable,
)
from octopus_async.guard import BreakerPolicy, Guard, GuardPolicy, State
from octopus_async.journal import FileJournal
from octopus_async.manager import DaoManager, Statistics
from octopus_async.model import KeyedModel, Model, uuid7
from octopus_async.record import Key, Outcome, Status
from octopus_async.session import Session
from octopus_async.strategies.plan import Acknowledge, Order
from octopus_async.strategies.read import Cascade, Hedge, Race, ReadStrategy
from octopus_async.strategies.receipt import Receipt

__all__ = [
    "Acknowledge",
    "Adapter",
    "BackendFailed",
    "BackendRefused",
    "BackendTimeout",
    "BreakerPolicy",
    "CacheAdapter",
    "Capabilities",
    "Cascade",
    "CircuitOpen",
    "ConfigurationError",
    "ConstraintViolated",
    "CopyProgress",
    "Dao",
    "DaoManager",
    "DeadLetter",
    "DuplicateRecord",
    "FileJournal",
    "Guard",
    "GuardPolicy",
    "Hedge",
    "InvalidRecord",
    "Journal",
    "JournalCorrupt",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "JournalStatistics",
    "Key",
    "KeyedModel",
    "ManagerClosed",
    "Model",
    "OctopusError",
    "OperationNotSupported",
    "Order",
    "Outcome",
    "Race",
    "ReadStrategy",
    "ReadUnavailable",
    "Receipt",
    "RecordNotFound",
    "RecordRejected",
    "Result",
    "Results",
    "Routing",
    "SchemaMismatch",
    "Session",
    "SessionEnded",
    "Settings",
    "StaleRecord",
    "State",
    "Statistics",
    "Status",
    "Unavailable",
    "WriteUnavailable",
    "each",
    "uuid7",
]
