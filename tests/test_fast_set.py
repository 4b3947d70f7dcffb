"""The allowed fast set, with the vectors of BEP 6."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torrent_client.protocol.fast_set import allowed_fast_set

BEP_VECTOR = [1059, 431, 808, 1217, 287, 376, 1188, 353, 508]


@pytest.mark.parametrize("size", [7, 9])
def test_the_vectors_of_the_specification_hold(size: int) -> None:
    """80.4.4.200, info hash of 20 bytes 0xaa, 1313 pieces."""
    assert allowed_fast_set(IPv4Address("80.4.4.200"), b"\xaa" * 20, 1313, size) == BEP_VECTOR[:size]


def test_neighbours_share_a_set() -> None:
    """The last byte of the address does not matter, so that a new address brings nothing."""
    sets = {tuple(allowed_fast_set(IPv4Address(f"192.0.2.{last}"), bytes(20), 500)) for last in (1, 77, 255)}
    assert len(sets) == 1


@given(pieces=st.integers(0, 40), size=st.integers(0, 12))
def test_a_small_torrent_has_a_small_set(pieces: int, size: int) -> None:
    """Never more pieces than there are, no piece twice, all within the torrent."""
    chosen = allowed_fast_set(IPv4Address("198.51.100.7"), b"h" * 20, pieces, size)
    assert len(chosen) == len(set(chosen)) == min(pieces, size)
    assert all(0 <= index < pieces for index in chosen)
