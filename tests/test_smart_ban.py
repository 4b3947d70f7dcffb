"""Who lied: the blocks of a failed piece against those of the good one."""

from tests.support import payload
from torrent_client import smart_ban
from torrent_client.config import BLOCK_SIZE
from torrent_client.smart_ban import MAX_PIECES_REMEMBERED, SmartBan
from torrent_client.tracker_client import PeerAddress

A, B, C = (PeerAddress(f"192.0.2.{number}", 6881) for number in (1, 2, 3))
GOOD = [memoryview(payload(BLOCK_SIZE, seed)) for seed in range(3)]
BAD = [memoryview(bytes(BLOCK_SIZE)) for _ in range(3)]


def test_only_suppliers_of_blocks_that_differ_are_guilty() -> None:
    """Those who sent good blocks of a bad piece are innocent."""
    ban = SmartBan()
    ban.remember(5, [(A, GOOD[0]), (B, BAD[1]), (C, GOOD[2])])
    assert ban.convict(5, GOOD) == {B}


def test_a_peer_is_guilty_for_one_bad_block_among_good_ones() -> None:
    """The good ones are no excuse."""
    ban = SmartBan()
    ban.remember(5, [(A, GOOD[0]), (A, BAD[1]), (B, GOOD[2])])
    assert ban.convict(5, GOOD) == {A}


def test_several_failures_of_a_piece_add_up() -> None:
    """A liar of the first attempt is found although the second one failed as well."""
    ban = SmartBan()
    ban.remember(5, [(A, BAD[0]), (B, GOOD[1]), (C, GOOD[2])])
    ban.remember(5, [(C, GOOD[0]), (B, BAD[1]), (C, GOOD[2])])
    assert ban.convict(5, GOOD) == {A, B}


def test_only_the_last_two_failures_of_a_piece_are_kept() -> None:
    """A piece that fails for ever does not fill the memory."""
    ban = SmartBan()
    for liar in (C, A, B):
        ban.remember(5, [(liar, BAD[0]), (liar, GOOD[1])])
    assert ban.convict(5, GOOD) == {A, B}


def test_blocks_are_compared_in_their_own_places() -> None:
    """Good bytes in the wrong place are bad bytes."""
    ban = SmartBan()
    ban.remember(5, [(A, GOOD[1]), (B, GOOD[0]), (C, GOOD[2])])
    assert ban.convict(5, GOOD) == {A, B}


def test_the_short_last_block_counts_too() -> None:
    """Its digest is of its own length."""
    ban = SmartBan()
    last = GOOD[2][:7]
    ban.remember(5, [(A, GOOD[0]), (B, BAD[0][:7])])
    assert ban.convict(5, [GOOD[0], last]) == {B}


def test_a_piece_that_never_failed_convicts_nobody() -> None:
    """Not even when another piece did."""
    ban = SmartBan()
    ban.remember(5, [(A, BAD[0])])
    assert ban.convict(6, GOOD) == set()
    assert ban.convict(5, GOOD) == {A}


def test_a_verdict_is_given_once() -> None:
    """Afterwards nothing is left of it in memory."""
    ban = SmartBan()
    ban.remember(5, [(A, BAD[0])])
    ban.convict(5, GOOD)
    assert ban.convict(5, GOOD) == set()
    assert not ban._failed


def test_blocks_of_pieces_that_did_not_fail_are_not_hashed() -> None:
    """Nearly all pieces: their blocks are not even looked at."""
    ban = SmartBan()
    assert ban.convict(5, (_ for _ in iter(lambda: 1 / 0, None))) == set()


def test_memory_has_a_limit_that_pieces_already_known_may_still_use() -> None:
    """A swarm that poisons everything costs us no more than so many pieces' digests."""
    ban = SmartBan()
    for index in range(MAX_PIECES_REMEMBERED + 1):
        ban.remember(index, [(A, BAD[0])])
    assert ban.convict(MAX_PIECES_REMEMBERED, GOOD) == set()
    ban.remember(0, [(B, BAD[0])])
    assert ban.convict(0, GOOD) == {A, B}
    ban.remember(MAX_PIECES_REMEMBERED, [(C, BAD[0])])  # there is room again
    assert ban.convict(MAX_PIECES_REMEMBERED, GOOD) == {C}
    assert smart_ban.MAX_PIECES_REMEMBERED >= 16
