"""Sets of piece indices: the wire's order of bits, and the same answers as a Python set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torrent_client.bitfield import Bitfield
from torrent_client.errors import ProtocolViolation

sizes_and_members = st.integers(0, 70).flatmap(
    lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1)) if size else st.just(set()))
)


def bitfield(size: int, members: set[int]) -> Bitfield:
    """Build a set one piece at a time."""
    result = Bitfield(size)
    for index in members:
        result.add(index)
    return result


def test_piece_0_is_the_high_bit_of_the_first_byte() -> None:
    """BEP 3's order, as in the module's own example."""
    parsed = Bitfield.from_bytes(bytes([0b11010110, 0b11000000]), 10)
    assert list(parsed) == [0, 1, 3, 5, 6, 8, 9]
    assert parsed.bits == 0b11_0110_1011


@given(sizes_and_members)
def test_every_set_survives_the_wire(case: tuple[int, set[int]]) -> None:
    """Bytes made of a set give the same set, in exactly ceil(size / 8) bytes."""
    size, members = case
    original = bitfield(size, members)
    data = original.to_bytes()
    assert len(data) == (size + 7) // 8
    assert [index for index in range(8 * len(data)) if data[index // 8] & 0x80 >> index % 8] == sorted(members)
    assert Bitfield.from_bytes(data, size) == original


@given(sizes_and_members)
def test_it_answers_as_a_set_does(case: tuple[int, set[int]]) -> None:
    """Membership, length, order and completeness."""
    size, members = case
    pieces = bitfield(size, members)
    assert list(pieces) == sorted(members)
    assert len(pieces) == len(members)
    assert {index for index in range(size) if index in pieces} == members
    assert pieces.complete == (len(members) == size)


@pytest.mark.parametrize(("size", "length"), [(0, 0), (1, 1), (7, 1), (8, 1), (9, 2), (16, 2), (17, 3)])
def test_only_the_exact_length_is_accepted(size: int, length: int) -> None:
    """A byte too few or too many is no bitfield for this torrent."""
    assert len(Bitfield.from_bytes(bytes(length), size)) == 0
    for wrong in {length + 1, max(0, length - 1)} - {length}:
        with pytest.raises(ProtocolViolation, match=f"{wrong} bytes for {size} pieces"):
            Bitfield.from_bytes(bytes(wrong), size)


@pytest.mark.parametrize(("size", "spare"), [(1, 0x40), (7, 0x01), (9, 0x40), (15, 0x01)])
def test_spare_bits_must_be_zero(size: int, spare: int) -> None:
    """BEP 3: who sets a bit beyond the last piece speaks of another torrent."""
    data = bytearray((size + 7) // 8)
    data[-1] = spare << 1  # the last piece's bit, or one before it
    assert len(Bitfield.from_bytes(bytes(data), size)) == 1
    data[-1] = spare
    with pytest.raises(ProtocolViolation, match="spare bits"):
        Bitfield.from_bytes(bytes(data), size)


@pytest.mark.parametrize("size", [0, 1, 8, 9, 100_003])
def test_full_is_complete_and_one_less_is_not(size: int) -> None:
    """All bits set, none of the spare ones."""
    full = Bitfield.full(size)
    assert full.complete
    assert len(full) == size
    assert Bitfield.from_bytes(full.to_bytes(), size) == full
    if size:
        assert not Bitfield(size, full.bits >> 1).complete


def test_adding_twice_changes_nothing() -> None:
    """It is idempotent."""
    pieces = Bitfield(5)
    pieces.add(3)
    pieces.add(3)
    assert list(pieces) == [3]


def test_equality_needs_the_same_pieces_of_as_many() -> None:
    """The same bits of a larger torrent are another set; anything else is no set."""
    assert Bitfield(5, 1) == Bitfield(5, 1)
    assert Bitfield(5, 1) != Bitfield(6, 1)
    assert Bitfield(5, 1) != Bitfield(5, 2)
    assert Bitfield(5, 1) != 1


def test_it_is_no_dictionary_key() -> None:
    """It is mutable, so that its hash would change."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(Bitfield(5))


def test_its_repr_is_short() -> None:
    """A log line shows the count, not a hundred thousand bits."""
    assert repr(Bitfield(100_000, 0b101)) == "<Bitfield 2/100000>"
