"""When seeding ends."""

import pytest

from torrent_client.seeding_goals import SeedingGoals, share_ratio


@pytest.mark.parametrize(
    ("goals", "uploaded", "seconds", "expected"),
    [
        (SeedingGoals(), 10**9, 10.0**9, None),
        (SeedingGoals(ratio=1.5), 149, 1e9, None),
        (SeedingGoals(ratio=1.5), 150, 0.0, "the ratio is 1.50"),
        (SeedingGoals(seconds=60), 10**9, 59.9, None),
        (SeedingGoals(seconds=60), 0, 60.0, "it has seeded for 1 min 0 s"),
        (SeedingGoals(ratio=2, seconds=60), 199, 59.0, None),
        (SeedingGoals(ratio=2, seconds=60), 200, 0.0, "the ratio is 2.00"),
        (SeedingGoals(ratio=2, seconds=60), 0, 60.0, "it has seeded for 1 min 0 s"),
    ],
)
def test_whichever_goal_is_reached_first_ends_seeding(
    goals: SeedingGoals, uploaded: int, seconds: float, expected: str | None
) -> None:
    """For a torrent of 100 bytes."""
    assert goals.reached(uploaded, 100, seconds) == expected


def test_a_torrent_without_a_byte_has_given_all_there_is() -> None:
    """Nobody waits for ever for a ratio that cannot grow, and nothing is divided by zero."""
    assert SeedingGoals(ratio=1).reached(0, 0, 0.0) is not None
    assert SeedingGoals(seconds=5).reached(0, 0, 0.0) is None
    assert share_ratio(0, 0) == 0.0
    assert share_ratio(150, 100) == 1.5
