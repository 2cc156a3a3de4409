"""The address guard under whatever addresses there are, against rules that are written another way than the guard's own."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskrunner.handlers.address import address_allowed, parse_networks

FOUR = st.integers(0, 2**32 - 1)
SIX = st.one_of(st.integers(0, 2**128 - 1), st.integers(0, 2**125 - 1).map(lambda n: 2**125 + n))
INNER = [(10, 8), (127, 8), (0, 8), (0xA9FE, 16), (0xC0A8, 16), (0xAC1, 12), (0xE, 4), (0xF, 4), (0x6440 >> 6, 10)]


def is_inner(n: int) -> bool:
    """By the bits: private, loopback, this network, link-local, multicast, reserved, carrier-grade NAT."""
    return any(n >> (32 - length) == head for head, length in INNER)


@settings(max_examples=500)
@example(0xA83F8110)  # 168.63.129.16
@given(FOUR)
def test_an_inner_address_never_passes_however_it_is_wrapped(n: int) -> None:
    plain = address_allowed(IPv4Address(n))
    assert not (plain and is_inner(n))
    assert address_allowed(IPv6Address(0xFFFF << 32 | n)) is plain, "mapped"
    assert address_allowed(IPv6Address(0x64FF9B << 96 | n)) is plain, "NAT64"
    tunnels = {
        "compatible": n,
        "translated": 0xFFFF << 48 | n,
        "6to4": 0x2002 << 112 | n << 80 | 1,
        "Teredo": 0x20010000 << 96 | n << 64 | n,
    }
    assert {name for name, whole in tunnels.items() if address_allowed(IPv6Address(whole))} == set()


@settings(max_examples=500)
@given(SIX)
def test_of_ipv6_only_global_unicast_passes(n: int) -> None:
    address = IPv6Address(n)
    if address_allowed(address) and address.ipv4_mapped is None and address not in IPv6Network("64:ff9b::/96"):
        assert n >> 125 == 0b001
        assert not any((address.is_private, address.is_multicast, address.is_reserved, address.is_link_local, address.is_loopback))


@settings(max_examples=200)
@given(FOUR, st.integers(8, 32), FOUR)
def test_the_allow_list_opens_what_it_names_and_nothing_else(base: int, length: int, n: int) -> None:
    network = base >> (32 - length) << (32 - length)
    allow = parse_networks([f"{IPv4Address(network)}/{length}"])
    inside = n >> (32 - length) == base >> (32 - length)
    assert address_allowed(IPv4Address(n), allow) is (inside or address_allowed(IPv4Address(n)))
    assert address_allowed(ip_address(network), allow)
