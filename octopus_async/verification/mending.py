"""Mends what differs: replicas by what the primary holds, caches by making them forget.

Nothing newer is ever replaced: a replica is written to if it still holds exactly what was seen, or
something older than the primary has; a cache forgets one version, or what is as old as the primary's.
"""

from __future__ import annotations

from collections.abc import Mapping

from octopus_async.cachevalue import encode_fields
from octopus_async.errors import OctopusError
from octopus_async.record import NO_VERSION, Key, Kind, Mode, Operation
from octopus_async.verification.difference import Difference, Pair
from octopus_async.verification.stores import Stores, Suspect

LEFT_ALONE = (
    "the primary knows less, and what it does not have would be forgotten: if it is right all the same, "
    "say so (primary_wins); if not, write the record again through the service"
)
_CHANGED = "it changed meanwhile, or was not taken"


async def mend(
    stores: Stores, found: Mapping[Suspect, tuple[Difference, Pair]], *, primary_wins: bool
) -> dict[Suspect, str | None]:
    """Mend differences of one model, and look whether they are gone.

    Parameters:
        stores: the model's backends.
        found: what differs.
        primary_wins: whether a replica forgets what the primary does not have, too.

    Returns:
        For each difference None if it is gone, or why it is not.

    Raises:
        Unavailable: a backend cannot be asked whether it is.
    """
    problems: dict[Suspect, str | None] = {}
    wanted: dict[str, list[Operation]] = {}
    for suspect, (kind, pair) in found.items():
        if suspect.backend in stores.caches:
            wanted.setdefault(suspect.backend, []).append(_forgetting(suspect.key, kind, pair))
        elif kind.beyond_the_primary and not primary_wins:
            problems[suspect] = LEFT_ALONE
        else:
            wanted.setdefault(suspect.backend, []).extend(_writing(suspect.key, pair))
    errors = await _apply(stores, wanted)
    tried = [suspect for suspect in found if suspect not in problems]
    for suspect, pair in (await stores.pairs(tried)).items():
        gone = stores.difference(suspect.backend, pair) is None
        problems[suspect] = None if gone else str(errors.get(suspect, _CHANGED))
    return problems


async def _apply(stores: Stores, wanted: Mapping[str, list[Operation]]) -> dict[Suspect, OctopusError]:
    errors: dict[Suspect, OctopusError] = {}
    for backend, operations in wanted.items():
        mode = Mode.MIRROR if backend in stores.caches else Mode.MEND
        outcomes = await stores.guard(backend).apply(operations, mode)
        for operation, outcome in zip(operations, outcomes, strict=True):
            if outcome.error is not None:
                errors[Suspect(operation.key, backend)] = outcome.error
    return errors


def _forgetting(key: Key, kind: Difference, pair: Pair) -> Operation:
    """What makes a cache forget what it should not have."""
    primary, other = pair
    if kind in (Difference.BEHIND, Difference.UNDELETED) and primary is not None:
        return Operation(Kind.INVALIDATE, key, primary.version, primary.born)
    version = NO_VERSION if other is None else other.version
    return Operation(Kind.RETRACT, key, version, NO_VERSION)


def _writing(key: Key, pair: Pair) -> list[Operation]:
    """What makes a replica's record that of the primary."""
    primary, other = pair
    met = None if other is None else other.version
    if primary is None:
        # A tombstone of the very version: whatever comes later is newer.
        return [Operation(Kind.DELETE, key, met or NO_VERSION, NO_VERSION, if_version=met)]
    if primary.fields is None:
        return [Operation(Kind.DELETE, key, primary.version, primary.born, if_version=met)]
    state = (encode_fields(primary.fields), met)
    write = Operation(Kind.UPDATE, key, primary.version, primary.born, primary.fields, *state)
    if other is not None and other.fields is not None and other.born > primary.born:
        # A store keeps the later birth of a record that lives on, so it is put there anew.
        remove = Operation(Kind.DELETE, key, primary.version, primary.born, if_version=met)
        return [remove, write._replace(kind=Kind.CREATE, if_version=primary.version)]
    return [write]
