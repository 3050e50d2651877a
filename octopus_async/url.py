"""A backend's URL, taken apart once: ``scheme://user:password@host:port,host:port/path?options``.

It never shows its password, in no message and no repr.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote

from octopus_async.errors import ConfigurationError

_SHAPE = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)\Z", re.DOTALL)
_LONGEST = 16 * 1024
_PORT_LIMIT = 1 << 16
_TRUE = {"1": True, "true": True, "yes": True, "on": True}
_FALSE = {"0": False, "false": False, "no": False, "off": False}
_SIZES = {"": 1, "b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3}
_SIZE = re.compile(r"([0-9]{1,15}) *([kmg]?b?)\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class BackendURL:
    """The parts of a backend's URL.

    Attributes:
        scheme: in lower case; says which adapter.
        hosts: each host with its port, None where the URL gives none.
        path: what follows the hosts, decoded, without its first slash.
        user: decoded; empty where there is none.
        password: decoded; never shown.
        options: the query, each name once.
    """

    scheme: str
    hosts: tuple[tuple[str, int | None], ...]
    path: str
    user: str = ""
    password: str = field(default="", repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str) -> BackendURL:
        """Take a URL apart. Raises `ConfigurationError`, which does not show the password."""
        if len(text) > _LONGEST:
            msg = f"a backend's URL has {len(text)} characters, over the limit of {_LONGEST}"
            raise ConfigurationError(msg)
        shape = _SHAPE.match(text)
        if shape is None:
            msg = "a backend's URL has the form scheme://..., for instance sqlite:///shop.db"
            raise ConfigurationError(msg)
        scheme = shape["scheme"].lower()
        rest, _, query = shape["rest"].partition("?")
        authority, _, path = rest.partition("/")
        if authority and "@" in path + query:
            # The rest of a password would be taken for a path, and shown as one.
            msg = f"{scheme}://: write @ / ? # and % percent-encoded in a user, password or option: @ is %40"
            raise ConfigurationError(msg)
        login, _, hosts = authority.rpartition("@")
        user, _, password = login.partition(":")
        return cls(
            scheme=scheme,
            hosts=_parse_hosts(scheme, hosts),
            path=unquote(path),
            user=unquote(user),
            password=unquote(password),
            options=_parse_options(scheme, query),
        )

    def __str__(self) -> str:
        hosts = ",".join(_shown(host, port) for host, port in self.hosts)
        user = _plain(self.user, "/:,")
        login = f"{user}:***@" if self.password else f"{user}@" if user else ""
        path = f"/{_plain(self.path)}" if self.path else ""
        return f"{self.scheme}://{login}{hosts}{path}"

    def check_options(self, *known: str) -> None:
        """Raise `ConfigurationError` for an option that the adapter does not know."""
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise self._wrong(f"unknown option {unknown[0]!r}; known are {', '.join(sorted(known))}")

    def text(self, name: str, default: str) -> str:
        """An option as text."""
        return self.options.get(name, default)

    def integer(self, name: str, default: int, *, least: int = 1) -> int:
        """An option as a whole number of at least ``least``."""
        text = self.options.get(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 15 or int(text) < least:  # noqa: PLR2004 - longer is no sane setting
            raise self._wrong(f"option {name!r} is a whole number from {least}, not {text[:40]!r}")
        return int(text)

    def number(self, name: str, default: float) -> float:
        """An option as a positive finite number."""
        text = self.options.get(name)
        if text is None:
            return default
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) is None or not float(text) > 0:
            raise self._wrong(f"option {name!r} is a positive number, not {text[:40]!r}")
        return float(text)

    def size(self, name: str, default: int) -> int:
        """An option as a number of bytes: ``65536``, ``64KB``, ``64MB``, ``2GB``."""
        text = self.options.get(name)
        if text is None:
            return default
        match = _SIZE.match(text)
        unit = match[2].lower() if match else ""
        factor = _SIZES.get(unit if unit in _SIZES else f"{unit}b")
        if match is None or factor is None or not int(match[1]):
            raise self._wrong(f"option {name!r} is a size such as 64MB, not {text[:40]!r}")
        return int(match[1]) * factor

    def flag(self, name: str, *, default: bool) -> bool:
        """An option as true or false."""
        text = self.options.get(name)
        if text is None:
            return default
        answer = {**_TRUE, **_FALSE}.get(text.lower())
        if answer is None:
            raise self._wrong(f"option {name!r} is true or false, not {text[:40]!r}")
        return answer

    def choice(self, name: str, default: str, *choices: str) -> str:
        """An option as one of ``choices``, in any case."""
        text = self.options.get(name, default)
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        raise self._wrong(f"option {name!r} is one of {', '.join(choices)}, not {text[:40]!r}")

    def _wrong(self, problem: str) -> ConfigurationError:
        return ConfigurationError(f"{self}: {problem}")


def _parse_hosts(scheme: str, text: str) -> tuple[tuple[str, int | None], ...]:
    if not text:
        return ()
    return tuple(_parse_host(scheme, part) for part in text.split(","))


def _parse_host(scheme: str, text: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:\s]+)(?::([0-9]{1,5}))?", text)
    if (
        match is None
        or not text.isprintable()
        or (match[2] is not None and not 0 < int(match[2]) < _PORT_LIMIT)
    ):
        msg = f"{scheme}://: a host has the form name, name:port, [v6] or [v6]:port"
        raise ConfigurationError(msg)
    return match[1].strip("[]"), int(match[2]) if match[2] else None


def _plain(text: str, also: str = "") -> str:
    """Text with what would be no part of a URL, or no part of a line, percent-encoded again."""
    return "".join(
        quote(letter, safe="", errors="replace")
        if letter in also + "%?#@" or not letter.isprintable()
        else letter
        for letter in text
    )


def _shown(host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def _parse_options(scheme: str, query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) != len(pairs):
        msg = f"{scheme}://: an option is given twice"
        raise ConfigurationError(msg)
    return options
