"""Which piece comes next: rarity against a naive model, ties, random first pieces, sequential mode."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torrent_client.piece_picker import PiecePicker, WantedPieces


def members(pieces: int) -> list[int]:
    """Return the indices in a set of bits."""
    return [index for index in range(pieces.bit_length()) if pieces >> index & 1]


@settings(max_examples=40)
@given(st.data())
def test_counts_and_rarest_pieces_agree_with_a_list_of_counters(data: st.DataObject) -> None:
    """However peers come, grow and go, the binary columns tell what a plain list of counts tells."""
    size = data.draw(st.integers(1, 40))
    picker = PiecePicker(size, Random(data.draw(st.integers(0, 99))), random_first=0)
    counts = [0] * size
    peers: list[int] = []
    sets = st.integers(0, (1 << size) - 1)
    for _ in range(data.draw(st.integers(0, 30))):
        if peers and data.draw(st.booleans()):
            gone = peers.pop(data.draw(st.integers(0, len(peers) - 1)))
            picker.remove(gone)
            for index in members(gone):
                counts[index] -= 1
        else:
            peers.append(data.draw(sets))
            picker.add(peers[-1])
            for index in members(peers[-1]):
                counts[index] += 1
        assert [picker.availability(index) for index in range(size)] == counts
        candidates = members(data.draw(sets))
        picked = picker.pick(sum(1 << index for index in candidates), completed=0)
        if not candidates:
            assert picked is None
        else:
            assert picked in candidates
            assert counts[picked] == min(counts[index] for index in candidates)


def test_a_count_carries_through_many_digits() -> None:
    """1,000 peers come and go: every carry and every borrow is taken."""
    picker = PiecePicker(2, Random(0))
    for number in range(1, 1001):
        picker.add(0b01)
        assert (picker.availability(0), picker.availability(1)) == (number, 0)
    assert len(picker._digits) == 10  # 1,000 has ten binary digits: the cost does not grow with the calls
    for number in range(999, -1, -1):
        picker.remove(0b01)
        assert (picker.availability(0), picker.availability(1)) == (number, 0)


def test_pieces_that_nobody_has_are_the_rarest() -> None:
    """A count of zero is lower than a count of one."""
    picker = PiecePicker(3, Random(0), random_first=0)
    picker.add(0b101)
    assert {picker.pick(0b111, completed=0) for _ in range(20)} == {1}


def test_the_piece_after_a_wide_gap_is_hardly_preferred() -> None:
    """Where others have a stretch already, the next piece is on its way to them."""
    picker = PiecePicker(100, Random(3), random_first=0)
    candidates = (1 << 50) - 1 | 1 << 99
    assert Counter(picker.pick(candidates, 0) for _ in range(1000))[99] < 100


def test_ties_are_broken_at_random() -> None:
    """Of equally rare pieces each is picked about equally often: else all peers would want the same one."""
    picker = PiecePicker(10, Random(1), random_first=0)
    picker.add(0b1111111110)
    picks = Counter(picker.pick(0b1111111110, completed=0) for _ in range(900))
    assert set(picks) == set(range(1, 10))
    assert min(picks.values()) >= 60


def test_every_one_of_a_few_scattered_pieces_can_be_picked() -> None:
    """Candidates before and after the random place count, the first and the last piece too."""
    picker = PiecePicker(100, Random(2), random_first=0)
    candidates = 1 | 1 << 50 | 1 << 99
    picks = Counter(picker.pick(candidates, completed=0) for _ in range(300))
    assert set(picks) == {0, 50, 99}
    assert min(picks[50], picks[99]) > 100


def test_the_same_seed_gives_the_same_picks() -> None:
    """A run can be repeated."""

    def picks(seed: int) -> list[int | None]:
        picker = PiecePicker(1000, Random(seed))
        return [picker.pick((1 << 1000) - 1, completed=0) for _ in range(10)]

    assert picks(7) == picks(7)
    assert picks(7) != picks(8)


@pytest.mark.parametrize(("completed", "picked"), [(0, {0, 1, 2, 3}), (3, {0, 1, 2, 3}), (4, {3}), (9, {3})])
def test_rarity_counts_only_after_the_first_pieces(completed: int, picked: set[int]) -> None:
    """A newcomer takes any piece, for rare ones are slow to get; with four complete it takes the rarest."""
    picker = PiecePicker(4, Random(3), random_first=4)
    picker.add(0b0111)
    assert {picker.pick(0b1111, completed) for _ in range(100)} == picked


@pytest.mark.parametrize("options", [{}, {"sequential": True}, {"random_first": 0}])
def test_no_candidates_no_pick(options: dict[str, bool]) -> None:
    """In every mode."""
    assert PiecePicker(4, Random(0), **options).pick(0, completed=0) is None


@pytest.mark.parametrize(
    ("candidates", "picked"), [(0b111111, 1), (0b111101, 4), (0b101101, 0), (0b101100, 2), (0b100000, 5)]
)
def test_sequential_mode_takes_the_lowest_of_the_most_urgent(candidates: int, picked: int) -> None:
    """Neither rarity nor chance nor the number of complete pieces matters."""
    picker = PiecePicker(6, Random(0), sequential=True)
    picker.levels = (0b010010, 0b101101)
    picker.add(0b011111)
    for completed in (0, 100):
        assert {picker.pick(candidates, completed) for _ in range(5)} == {picked}


def test_the_most_urgent_level_with_a_candidate_comes_first() -> None:
    """Urgency goes before rarity, and rarity decides within a level."""
    picker = PiecePicker(6, Random(0), random_first=0)
    picker.levels = (0b000011, 0b001100, 0b110000)
    picker.add(0b101011)
    picker.add(0b000001)
    assert picker.pick(0b111111, completed=0) == 1
    assert picker.pick(0b111101, completed=0) == 0
    assert picker.pick(0b111100, completed=0) == 2
    assert picker.pick(0b110000, completed=0) == 4
    assert picker.pick(0b100000, completed=0) == 5


def test_urgency_counts_for_the_first_random_pieces_too() -> None:
    """Any piece will do, but of the most urgent level."""
    picker = PiecePicker(6, Random(0), random_first=4)
    picker.levels = (0b000111, 0b111000)
    assert {picker.pick(0b111111, completed=0) for _ in range(60)} == {0, 1, 2}


def test_a_suggested_piece_wins_among_equals_only() -> None:
    """Neither urgency nor rarity gives way to what a peer has at hand; order in sequential mode does not either."""
    picker = PiecePicker(6, Random(0), random_first=0)
    picker.levels = (0b011111, 0b100000)
    picker.add(0b000011)
    assert {picker.pick(0b111111, completed=0, suggested=0b101001) for _ in range(20)} == {3}
    assert {picker.pick(0b111111, completed=0, suggested=0b100001) for _ in range(60)} == {2, 3, 4}
    sequential = PiecePicker(6, Random(0), sequential=True)
    assert sequential.pick(0b111111, completed=0, suggested=0b001000) == 0


def test_a_piece_on_no_level_is_not_wanted() -> None:
    """It is never picked, even as the only candidate."""
    picker = PiecePicker(4, Random(0))
    picker.levels = (0b0010, 0b0100)
    assert picker.pick(0b1001, completed=0) is None
    assert {picker.pick(0b1111, completed=9) for _ in range(20)} == {1}


@pytest.mark.parametrize("count", [0, 1, 9])
def test_all_pieces_are_wanted_alike_by_default(count: int) -> None:
    """One level with all of them, and no surplus."""
    assert WantedPieces.all_of(count) == ((2**count - 1,), {})
    assert PiecePicker(count, Random(0)).levels == (2**count - 1,)
