"""Which addresses a REST client may connect to.

Asked of the address that is connected to, after its name was resolved: a name that means something else
from one look-up to the next (DNS rebinding) gets nobody any further.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from octopus_async.errors import ConfigurationError

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_METADATA = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # EC2, Google, Azure, OpenStack, DigitalOcean, Oracle
            "169.254.170.2",  # credentials of ECS tasks
            "169.254.170.23",  # credentials of EKS pods
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",  # Google
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle, formerly
            "168.63.129.16",  # Azure's wire server, in a public range
        ),
    )
)
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE = IPv6Network("::/96")
_OLD_SITE_LOCAL = IPv6Network("fec0::/10")
_LOW_32_BITS = (1 << 32) - 1


class AddressRefused(OSError):
    """The address may not be connected to."""


class AddressPolicy:
    """Public addresses, and what the configuration allows beside them.

    The address of a cloud's metadata service is allowed only by a network that holds nothing else
    (``169.254.169.254/32``): a wide one is not meant for it.

    Parameters:
        allowed: networks of one's own, such as ``10.20.0.0/16`` or ``127.0.0.1``.

    Raises:
        ConfigurationError: one of them is no network.
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        try:
            self._allowed = tuple(ip_network(text.strip()) for text in allowed)
        except ValueError as error:
            raise ConfigurationError(f"option 'allow' is a list of networks: {error}") from None

    def check(self, text: str) -> None:
        """Raise `AddressRefused` if the address may not be connected to."""
        address = _embedded(ip_address(text.partition("%")[0]))
        if not self._allows(address):
            what = "of a metadata service" if address in _METADATA else "not public"
            raise AddressRefused(f"the address {address} is {what}, and the option 'allow' does not name it")

    def _allows(self, address: Address) -> bool:
        if address in _METADATA:
            return any(address in network and network.num_addresses == 1 for network in self._allowed)
        if any(address in network for network in self._allowed):
            return True
        return address.is_global and not (address.is_multicast or address.is_reserved or _is_odd(address))


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in _NAT64):
        return IPv4Address(int(address) & _LOW_32_BITS)
    return address


def _is_odd(address: Address) -> bool:
    """Whether it is of a range that has no business on the Internet, whatever the library's table says."""
    if isinstance(address, IPv4Address):
        return False
    return address in _COMPATIBLE or address in _OLD_SITE_LOCAL or address.teredo is not None
