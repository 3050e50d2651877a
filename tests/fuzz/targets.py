"""Every target of the fuzzers: what is given hostile bytes, and honest ones to begin with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.fuzz import journals, parsers


class Target(NamedTuple):
    """What is fuzzed.

    Attributes:
        run: is given bytes; whatever it raises is a bug.
        seeds: honest bytes.
        blind: whether the bytes are but the seed of a random change, so that coverage says nothing of them.
    """

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]
    blind: bool = False


TARGETS = {
    "journal-forged": Target(journals.read_forged, journals.FORGED_SEEDS),
    "journal-damaged": Target(journals.read_damaged, [b"1"], blind=True),
    "journal-ceiling": Target(journals.read_ceiling, journals.CEILING_SEEDS),
    "cache-forged": Target(parsers.read_forged_cell, parsers.CELL_SEEDS),
    "cache-damaged": Target(parsers.read_damaged_cell, [b"1"], blind=True),
    "url": Target(parsers.read_url, parsers.URL_SEEDS),
    "settings": Target(parsers.read_settings, parsers.TOML_SEEDS),
    "memcached-replies": Target(parsers.read_replies, parsers.REPLY_SEEDS),
    "fields": Target(parsers.read_fields, parsers.FIELD_SEEDS),
}
