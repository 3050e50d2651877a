"""How a URL asks for encryption, alike for all servers."""

from __future__ import annotations

import ssl

from octopus_async.errors import ConfigurationError
from octopus_async.url import BackendURL

OPTIONS = ("tls", "tls_ca", "tls_cert", "tls_key")


def context_of(url: BackendURL) -> ssl.SSLContext | None:
    """What the options of a URL ask for; None for no encryption.

    ``tls`` is ``off``, ``verify``, or ``insecure`` for a certificate that nobody checks; ``tls_ca``,
    ``tls_cert`` and ``tls_key`` are files. Raises `ConfigurationError`.
    """
    how = url.choice("tls", "off", "off", "verify", "insecure")
    if how == "off":
        return None
    try:
        context = ssl.create_default_context(cafile=url.options.get("tls_ca"))
        if how == "insecure":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if "tls_cert" in url.options:
            context.load_cert_chain(url.options["tls_cert"], url.options.get("tls_key"))
    except OSError as error:
        raise ConfigurationError(f"{url}: the files for TLS can't be read: {error}") from None
    return context
