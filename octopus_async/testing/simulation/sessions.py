"""What simulated clients do with sessions: several records, all of them or none."""

from __future__ import annotations

from collections.abc import Sequence

from octopus_async.manager import DaoManager
from octopus_async.model import KeyedModel
from octopus_async.testing.simulation.history import OK, Call


async def commit_session(calls: Sequence[Call], models: Sequence[KeyedModel], manager: DaoManager) -> None:
    """Create the models of ``calls`` in one session. Raises `OctopusError`."""
    async with manager.session() as session:
        for model in models:
            session.create(model)
    for call, receipt in zip(calls, session.receipts, strict=True):
        call.result, call.version = OK, receipt.version
        call.journalled, call.provisional = receipt.journalled, receipt.provisional
