"""Super-seeding decisions, without a swarm."""

from random import Random

import pytest

from tests.support import FakeClock
from torrent_client.super_seeder import PATIENCE, Offer, SuperSeeder


@pytest.fixture
def seeder(rng: Random, clock: FakeClock) -> SuperSeeder:
    """Return a super-seeder of 20 pieces."""
    return SuperSeeder(20, rng, clock)


def shown(offers: list[Offer]) -> dict[object, int]:
    """Return the piece that each peer is shown."""
    return {offer.peer: offer.piece_index for offer in offers}


def test_each_newcomer_is_shown_a_piece_of_its_own(seeder: SuperSeeder) -> None:
    """Different pieces, so that they can trade."""
    offers = [seeder.joined(name) for name in "abcdefgh"]
    assert all(len(offer) == 1 for offer in offers)
    assert len({offer[0].piece_index for offer in offers}) == 8


def test_a_piece_that_has_only_arrived_earns_nothing(seeder: SuperSeeder) -> None:
    """The peer must pass it on first."""
    first = shown(seeder.joined("a"))["a"]
    seeder.joined("b")
    assert seeder.peer_has("a", 1 << first) == []


def test_whoever_passed_its_piece_on_is_shown_the_next(seeder: SuperSeeder) -> None:
    """A third party has it now: only `a` can have given it."""
    first = shown(seeder.joined("a"))["a"]
    seeder.joined("b")
    seeder.peer_has("a", 1 << first)
    offers = shown(seeder.peer_has("b", 1 << first))
    assert list(offers) == ["a"]
    assert offers["a"] != first


def test_a_lone_peer_is_served_piece_after_piece(seeder: SuperSeeder) -> None:
    """There is nobody to pass anything on to."""
    index = shown(seeder.joined("a"))["a"]
    seen = {index}
    while offers := seeder.peer_has("a", 1 << index):
        index = shown(offers)["a"]
        assert index not in seen
        seen.add(index)
    assert seen == set(range(20))


def test_the_last_peer_that_lacks_something_still_gets_everything(seeder: SuperSeeder) -> None:
    """When all others are complete, waiting for one of them would be for ever."""
    everything = (1 << 20) - 1
    offers = seeder.joined("a")
    seeder.joined("b")
    offers += seeder.peer_has("b", everything)
    seen = set()
    while offers:
        index = offers.pop().piece_index
        seen.add(index)
        offers += seeder.peer_has("a", 1 << index)
    assert seen == set(range(20))


def test_a_piece_that_left_with_its_peer_is_shown_again(seeder: SuperSeeder) -> None:
    """What only a lost peer had counts as having no copies."""
    lost = shown(seeder.joined("a"))["a"]
    seeder.left("a")
    offers = {shown(seeder.joined(f"peer {number}"))[f"peer {number}"] for number in range(20)}
    assert lost in offers


def test_whoever_waits_for_a_peer_that_leaves_is_shown_the_next(seeder: SuperSeeder) -> None:
    """Nobody is left who could get the piece from it; while somebody is, it waits on."""
    first = shown(seeder.joined("a"))["a"]
    seeder.joined("b")
    seeder.joined("c")
    seeder.peer_has("a", 1 << first)
    assert seeder.left("b") == []
    offers = shown(seeder.left("c"))
    assert list(offers) == ["a"]
    assert offers["a"] != first
    assert seeder.peer_has("a", 1 << offers["a"])


def test_a_peer_that_never_fetches_holds_nobody_up_for_ever(seeder: SuperSeeder, clock: FakeClock) -> None:
    """Whoever has waited for a minute is shown another piece, once a minute."""
    first = shown(seeder.joined("a"))["a"]
    clock.advance(PATIENCE / 2)
    seeder.joined("lazy")
    seeder.peer_has("a", 1 << first)
    clock.advance(PATIENCE / 2 - 1)
    assert seeder.tick(clock()) == []
    clock.advance(1)
    offers = shown(seeder.tick(clock()))
    assert list(offers) == ["a"]
    assert offers["a"] != first
    assert seeder.tick(clock()) == []


def test_a_peer_that_has_or_was_shown_everything_is_shown_no_more(seeder: SuperSeeder, clock: FakeClock) -> None:
    """However long it waits."""
    seen = set(shown(seeder.joined("a")).values())
    for _ in range(19):
        clock.advance(PATIENCE)
        seen |= set(shown(seeder.tick(clock())).values())
    assert seen == set(range(20))
    clock.advance(PATIENCE)
    assert seeder.tick(clock()) == []


def test_nobody_is_shown_what_it_has(seeder: SuperSeeder) -> None:
    """A peer that comes with pieces is shown others."""
    seeder.joined("a")
    first = shown(seeder.joined("b"))["b"]
    seeder.peer_has("b", ((1 << 20) - 1) & ~(1 << first) & ~(1 << 3))
    offers = seeder.peer_has("b", 1 << first) + seeder.peer_has("a", 1 << first)
    assert all(offer.piece_index == 3 for offer in offers if offer.peer == "b")


def test_news_of_a_peer_that_has_left_is_ignored(seeder: SuperSeeder) -> None:
    """A message may cross the end of its connection."""
    assert seeder.peer_has("nobody", 1) == []
    assert seeder.left("nobody") == []
