"""Which addresses a webhook may dial: the guard against server-side request forgery.

It sits where the socket is made, so it sees every address that is really dialled: literals in any spelling, each answer of a
resolver, and a name that changes its answer between two look-ups.
"""

import errno
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import AddrInfoType, SocketFactoryType

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64 = IPv6Network("64:ff9b::/96")
_UNICAST = IPv6Network("2000::/3")  # the only IPv6 space in public use; loopback, ULA, link- and site-local and multicast lie outside

# ``is_global`` alone is not enough: it differs between Python versions and lets multicast, 6to4 and cloud metadata pass.
_DENIED: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's WireServer
        "169.254.0.0/16",  # link-local, with the metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # IETF assignments, with Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # IETF assignments, with Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)


class BlockedError(OSError):
    """The guard refused to dial. An ``OSError``, so that aiohttp treats it as any address that cannot be reached."""


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks of ``TASKRUNNER_WEBHOOK_ALLOW``, which the settings have checked."""
    return tuple(ip_network(text) for text in texts)


def address_allowed(address: Address, allow: Sequence[Network] = ()) -> bool:
    """True for a public unicast address and for one inside ``allow``.

    An IPv4 address inside IPv6 (mapped, or behind NAT64) is judged as the IPv4 address that answers. The other tunnels (6to4, Teredo,
    IPv4-compatible, IPv4-translated) are out of use and never pass by themselves.
    """
    target = _unwrapped(address)
    if any(target in network for network in allow):
        return True
    if isinstance(target, IPv6Address) and target not in _UNICAST:
        return False
    # is_global adds whatever a newer Python has learnt to be special.
    return target.is_global and not any(target in network for network in _DENIED)


def guarded_sockets(allow: Sequence[Network]) -> SocketFactoryType:
    """A socket factory for aiohttp's ``TCPConnector`` that raises ``BlockedError`` instead of dialling what is not allowed."""

    def open_socket(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, target = info
        if family not in (socket.AF_INET, socket.AF_INET6) or not _literal_allowed(str(target[0]), allow):
            raise BlockedError(errno.EACCES, f"{target[0]} is blocked: it is not public and not inside TASKRUNNER_WEBHOOK_ALLOW")
        return socket.socket(family, kind, protocol)

    return open_socket


def _literal_allowed(text: str, allow: Sequence[Network]) -> bool:
    try:
        address = ip_address(text)
    except ValueError:  # not an address in its one spelling, so nobody can say where it leads
        return False
    return address_allowed(address, allow)


def _unwrapped(address: Address) -> Address:
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
