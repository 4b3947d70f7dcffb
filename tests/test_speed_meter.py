"""Bytes per second: of the last second, and smoothed."""

import pytest

from torrent_client.speed_meter import SpeedMeter


def run(*counts: int, seconds: float = 1.0) -> SpeedMeter:
    """Return a meter after some readings."""
    meter = SpeedMeter()
    for count in counts:
        meter.add(count)
        meter.tick(seconds)
    return meter


def test_a_new_meter_shows_nothing() -> None:
    """Zero in all three numbers, and still so after a reading of nothing."""
    meter = SpeedMeter()
    assert (meter.total, meter.last_second, meter.smoothed) == (0, 0.0, 0.0)
    meter.tick(1.0)
    assert (meter.total, meter.last_second, meter.smoothed) == (0, 0.0, 0.0)


def test_the_last_second_is_the_difference_of_two_readings() -> None:
    """Per second, however long it was between them."""
    meter = run(1000)
    meter.add(300)
    meter.add(200)
    meter.tick(2.0)
    assert meter.last_second == 250.0
    assert meter.total == 1500
    meter.tick(1.0)
    assert meter.last_second == 0.0


def test_the_first_readings_are_a_plain_mean() -> None:
    """A new peer's rate is right at once, and not after a slow rise from zero."""
    assert run(1000).smoothed == pytest.approx(1000)
    assert run(1000, 2000).smoothed == pytest.approx(1500)
    assert run(1000, 2000, 6000).smoothed == pytest.approx(3000)


def test_later_readings_have_a_weight_of_three_tenths() -> None:
    """The rate follows a change within some five seconds, and one odd second moves it little."""
    meter = run(*[1000] * 10)
    assert meter.smoothed == pytest.approx(1000)
    meter.add(2000)
    meter.tick(1.0)
    assert meter.smoothed == pytest.approx(1300)
    for _ in range(5):
        meter.add(2000)
        meter.tick(1.0)
    assert 1850 < meter.smoothed < 1950


def test_a_rate_that_has_died_away_is_zero() -> None:
    """Not a thousandth of a byte per second, by which an arrival time would be a million years."""
    meter = run(*[100_000] * 5, *[0] * 40)
    assert meter.smoothed == 0.0


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_reading_without_time_shows_nothing(seconds: float) -> None:
    """Two ticks at once divide nothing by zero."""
    assert run(1000, seconds=seconds).last_second == 0.0
