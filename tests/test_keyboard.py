"""Keys that change limits, and the terminal that they come from."""

import os
import pty
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from torrent_client.cli.keyboard import HIGHEST_RATE, LOWEST_RATE, Keyboard, LimitKeys, describe, obey
from torrent_client.config import MIB
from torrent_client.rate_limiter import Limits, RateLimiter


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """Return a terminal: the descriptor on which somebody types, and the program's standard input."""
    typing, descriptor = pty.openpty()
    with os.fdopen(descriptor, "r") as stream:
        yield typing, stream
    os.close(typing)


def test_keys_come_one_by_one_and_only_once(terminal: tuple[int, TextIO]) -> None:
    """Without Enter, and without waiting when there is none."""
    typing, stream = terminal
    with Keyboard(stream) as keyboard:
        assert keyboard.is_there
        assert keyboard.pressed() == ""
        os.write(typing, b"dU")
        assert keyboard.pressed() == "dU"
        assert keyboard.pressed() == ""


def test_the_terminal_is_given_back_as_it_was(terminal: tuple[int, TextIO]) -> None:
    """A shell without an echo is a nuisance."""
    _, stream = terminal
    before = termios.tcgetattr(stream.fileno())
    with Keyboard(stream):
        assert termios.tcgetattr(stream.fileno()) != before
    assert termios.tcgetattr(stream.fileno()) == before


def test_without_a_terminal_there_are_no_keys() -> None:
    """Standard input may be a file, a pipe, or nothing."""
    with open(os.devnull) as nothing, Keyboard(nothing) as keyboard:
        assert not keyboard.is_there
        assert keyboard.pressed() == ""
    with Keyboard(None) as keyboard:
        assert not keyboard.is_there


def test_a_terminal_that_goes_away_ends_the_keys() -> None:
    """A closed window must not end a download."""
    typing, descriptor = pty.openpty()
    with os.fdopen(descriptor, "r") as stream, Keyboard(stream) as keyboard:
        os.close(typing)
        assert keyboard.pressed() == ""
        assert not keyboard.is_there


def test_lowering_begins_below_the_present_speed_and_ends_at_the_lowest_rate() -> None:
    """The first key press already shows."""
    limits = Limits()
    obey("d", limits, 5.0 * MIB, 0.0)
    assert limits.download.rate == 4 * MIB
    obey("dd", limits, 4.0 * MIB, 0.0)
    assert limits.download.rate == 1 * MIB
    obey("d" * 40, limits, 0.0, 0.0)
    assert limits.download.rate == LOWEST_RATE
    assert not limits.upload.is_limited


def test_raising_ends_without_a_limit() -> None:
    """And raising no limit changes nothing."""
    limits = Limits(upload=RateLimiter(100.0))
    rates = []
    while limits.upload.rate:
        obey("U", limits, 0.0, 0.0)
        rates.append(limits.upload.rate)
    assert rates[0] == LOWEST_RATE
    assert rates[-2:] == [HIGHEST_RATE, 0]
    obey("U", limits, 0.0, 0.0)
    assert not limits.upload.is_limited


def test_other_keys_mean_nothing() -> None:
    """A cat may walk over the keyboard."""
    limits = Limits()
    obey("xyz\x1b[A 1\n", limits, 1.0, 1.0)
    assert describe(limits) == "↓ none  ↑ none"


def test_a_key_chooses_whose_limits_the_others_change() -> None:
    """All torrents together, the first, the second, and all again; each begins below its own speed."""
    session, first, second = Limits(), Limits(), Limits()
    keys = LimitKeys(session, [first, second])
    rates, names = [(MIB, 0), (3 * MIB, 0)], ["a.iso", "b\x1b.iso"]
    keys.press("d", rates)
    assert session.download.rate == 2 * MIB
    assert keys.describe(names).startswith("limits: ↓ 2")
    keys.press("ttd", rates)
    assert (first.download.rate, second.download.rate) == (0, 2 * MIB)
    assert keys.describe(names).startswith("limits of b\N{REPLACEMENT CHARACTER}.iso: ↓ 2")
    keys.press("ttd", rates)
    assert first.download.rate == 512 * 1024
    keys.press("ttD", rates)
    assert session.download.rate == 4 * MIB
