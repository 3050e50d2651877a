"""Where a REST service is, read from a backend's URL."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import quote

from octopus_async.adapters._rest_addresses import AddressPolicy
from octopus_async.errors import ConfigurationError
from octopus_async.url import BackendURL

OPTIONS = (
    "connections", "timeout", "token", "bulk", "scan", "allow", "max_answer", "tls_ca", "tls_cert", "tls_key",
)  # fmt: skip
DEFAULT_MAX_ANSWER = 32 * 1024**2
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_SAFE_IN_PATH = "/:@!$&'()*+,;="


@dataclass(frozen=True)
class Endpoint:
    """Where a service is, and how to talk to it.

    Attributes:
        base: the URL that all paths are below, without a slash at its end.
        headers: what goes with each request; may hold secrets.
        addresses: what may be connected to.
        connections: how many at most.
        timeout: seconds that connecting may take, TLS included.
        max_answer: the most bytes of an answer's body.
        tls: how to verify; None for plain HTTP.
    """

    base: str
    addresses: AddressPolicy
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connections: int = 8
    timeout: float = 2.0
    max_answer: int = DEFAULT_MAX_ANSWER
    tls: ssl.SSLContext | None = None


def endpoint_of(url: BackendURL) -> Endpoint:
    """Read the options of a URL. Raises `ConfigurationError`, which shows no secret."""
    url.check_options(*OPTIONS)
    allowed = [part for part in url.text("allow", "").split(",") if part]
    return Endpoint(
        base=_base_of(url),
        addresses=AddressPolicy(allowed),
        headers=_authorization_of(url),
        connections=url.integer("connections", 8),
        timeout=url.number("timeout", 2.0),
        max_answer=url.size("max_answer", DEFAULT_MAX_ANSWER),
        tls=_tls_of(url),
    )


def _base_of(url: BackendURL) -> str:
    if len(url.hosts) != 1:
        raise ConfigurationError(f"{url}: a REST service has one host")
    ((host, port),) = url.hosts
    origin = f"{_transport_of(url)}://{_name_of(host, url)}" + ("" if port is None else f":{port}")
    path = quote(url.path.rstrip("/"), safe=_SAFE_IN_PATH)
    if any(part in (".", "..") for part in path.split("/")):
        raise ConfigurationError(f"{url}: the path goes by '.' or '..'")
    return f"{origin}/{path}" if path else origin


def _name_of(host: str, url: BackendURL) -> str:
    if ":" in host:
        return f"[{host}]"
    try:
        name = host.encode("idna").decode()
    except UnicodeError:
        name = ""
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(f"{url}: the host is no name of the DNS")
    return name


def _transport_of(url: BackendURL) -> str:
    return url.scheme.removeprefix("rest+")


def _authorization_of(url: BackendURL) -> dict[str, str]:
    token = url.text("token", "")
    if not (token or url.user or url.password):
        return {}
    if token and (url.user or url.password):
        raise ConfigurationError(f"{url}: either a user with a password, or a token")
    if _transport_of(url) != "https" and not _is_loopback(url.hosts[0][0]):
        raise ConfigurationError(f"{url}: a password or token travels over https alone: rest+https://")
    if token and not (token.isascii() and token.isprintable()):
        raise ConfigurationError(f"{url}: the token is printable ASCII")
    login = base64.b64encode(f"{url.user}:{url.password}".encode()).decode()
    return {"Authorization": f"Bearer {token}" if token else f"Basic {login}"}


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _tls_of(url: BackendURL) -> ssl.SSLContext | None:
    files = [name for name in ("tls_ca", "tls_cert", "tls_key") if name in url.options]
    if _transport_of(url) != "https":
        if files:
            raise ConfigurationError(f"{url}: option {files[0]!r} is for rest+https://")
        return None
    try:
        context = ssl.create_default_context(cafile=url.options.get("tls_ca"))
        if "tls_cert" in url.options:
            context.load_cert_chain(url.options["tls_cert"], url.options.get("tls_key"))
    except OSError as error:
        raise ConfigurationError(f"{url}: the files for TLS can't be read: {error}") from None
    return context
