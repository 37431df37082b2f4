"""Copies differ from their original where they have to, and are as long."""

from __future__ import annotations

import ipaddress

import pytest

from bench.operator.standing import address_of, replaced


def test_each_session_has_a_loopback_address_of_the_same_length() -> None:
    addresses = [address_of(number) for number in range(20_000)]
    assert len(set(addresses)) == len(addresses)
    assert {len(address) for address in addresses} == {15}
    assert all(ipaddress.ip_address(address).is_loopback for address in addresses)


def test_a_copy_has_other_values_of_the_same_length() -> None:
    value = b"\x0a\x07s-00001\x12\x0awasession-s-00001"
    assert replaced(value, {"s-00001": "s-00002"}) == value.replace(b"00001", b"00002")
    with pytest.raises(ValueError, match="as long as"):
        replaced(value, {"s-00001": "s-100000"})
