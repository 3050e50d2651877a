"""Makes hostile bytes of honest ones: a small mutation fuzzer, seeded, for where atheris is not."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_INTERESTING = (
    b"",
    b"\0",
    b"\xff",
    b"\n",
    b"\r\n",
    b'"',
    b"\\",
    b'\\u0000"',
    b"\xed\xa0\x80",
    b"{",
    b"}",
    b"[" * 300,
    b"-1",
    b"0",
    b"1e400",
    b"-1E400",
    b"NaN",
    b"9" * 40,
    b"9" * 5000,
    b"null",
    b"true",
    b'"text"',
    b"[]",
    b"{}",
    b"2.5",
    b"%00",
    b"%",
    b"@",
    b"/",
)


def mutated(data: bytes, chance: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """``data`` after one to four changes: flipped, cut, doubled, moved, overwritten, joined with another."""
    for _ in range(chance.randint(1, 4)):
        data = _changed(data, chance, others)
    return data


def _changed(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    start = chance.randint(0, len(data))
    end = min(len(data), start + chance.choice((1, 1, 2, 4, 16, 200)))
    before, piece, after = data[:start], data[start:end], data[end:]
    other = chance.choice(others or [b""])
    return chance.choice(
        (
            before + bytes([data[start % len(data)] ^ 1 << chance.randrange(8)]) + after if data else b"\0",
            before + after,
            before + piece * chance.choice((2, 3, 50)) + after,
            before,
            after + before + piece,
            before + other[chance.randint(0, len(other)) :],
            before + chance.choice(_INTERESTING) + piece + after,
            before + chance.choice(_INTERESTING) + after,
        )
    )


def mutations(seeds: Sequence[bytes], chance: random.Random) -> Iterator[bytes]:
    """Hostile forms of ``seeds`` without end; a mutation is mutated again now and then."""
    pool = list(seeds)
    while True:
        data = mutated(chance.choice(pool), chance, seeds)
        yield data
        if chance.random() < 0.02 and len(data) < 100_000:
            pool.append(data)
