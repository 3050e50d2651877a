"""A message of the SQS sink: one JSON object, which `jq` can read, with a checksum. Pure.

``{"octopus":1,"op":"update","model":"Book","id":"7","version":"01J...","born":"01J...","fields":{...}}`` and,
before the last brace, ``,"sum":"1a2b3c4d"``: the CRC-32 of all bytes before it.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any
from zlib import crc32

from pydantic_core import from_json, to_json

from octopus_async.clock import is_version
from octopus_async.record import NO_VERSION, Key, Kind, Operation

FORMAT = 1
MOST_BYTES = 256 * 1024
_SUM_LENGTH = len(',"sum":"00000000"}')
_FORBIDDEN = re.compile("[\ufffe\uffff]")
_KINDS = {kind.value: kind for kind in (Kind.CREATE, Kind.UPDATE, Kind.DELETE)}


def encode(operation: Operation) -> str:
    """Write an operation as the body of a message."""
    head: dict[str, object] = {
        "octopus": FORMAT,
        "op": operation.kind.value,
        "model": operation.key.model,
        "id": operation.key.id,
        "version": operation.version,
        "born": operation.born,
    }
    payload = operation.payload
    body = to_json(head)[:-1] + (b"" if payload is None else b',"fields":' + payload)
    # The two characters that JSON may hold and SQS refuses; they can only stand within a text.
    text = _FORBIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", body.decode())
    return f'{text},"sum":"{crc32(text.encode()):08x}"}}'


def decode(text: str) -> Operation:
    """Read the body of a message. Raises ValueError, which says why it is none of ours."""
    body, end = text[:-_SUM_LENGTH], text[-_SUM_LENGTH:]
    if end != f',"sum":"{crc32(body.encode(errors="replace")):08x}"}}':
        raise ValueError("its checksum is wrong, or it is no message of this library")
    members: Any = from_json(body + "}", allow_inf_nan=False)
    if not isinstance(members, dict) or members.get("octopus") != FORMAT:
        raise ValueError(f"it is not of format {FORMAT}")
    kind, fields = _KINDS.get(str(members.get("op"))), members.get("fields")
    texts = [members.get(name) for name in ("model", "id", "version", "born")]
    if kind is None or not all(isinstance(text, str) for text in texts):
        raise ValueError("members are missing")
    model, id_, version, born = map(str, texts)
    if not is_version(version) or not (born == NO_VERSION or is_version(born)):
        raise ValueError("its versions are none")
    if (fields is None) != (kind is Kind.DELETE) or not isinstance(fields, dict | None):
        raise ValueError("a delete has no fields, anything else has")
    payload = None if fields is None else to_json(fields)
    return Operation(kind, Key(model, id_), version, born, fields, payload)


def group_of(key: Key) -> str:
    """The message group of a key: its messages stay in order, and nobody learns the id from it."""
    return blake2b(f"{key.model}\0{key.id}".encode(), digest_size=16).hexdigest()


def parts(sizes: list[int], *, count: int, most: int) -> list[list[int]]:
    """The places of messages in batches, in order, each within the queue's limits of count and bytes."""
    batches: list[list[int]] = []
    room = 0
    for place, size in enumerate(sizes):
        if not batches or len(batches[-1]) == count or size > room:
            batches.append([])
            room = most
        batches[-1].append(place)
        room -= size
    return batches
