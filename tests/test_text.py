"""Text for people: sizes, rates, durations, and strangers' strings made safe for a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torrent_client.text import counted, format_duration, format_rate, format_size, printable

KIB, MIB, GIB, TIB = (1024**power for power in (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("debian.iso", "debian.iso"),
        ("Grüße, 世界 🙂", "Grüße, 世界 🙂"),
        (b"Gr\xc3\xbc\xc3\x9fe", "Grüße"),
        (b"\xff\xfe", "��"),
        ("\x1b[2J\x1b[H", "�[2J�[H"),  # clears the screen
        ("a\r\nb\tc\0", "a��b�c�"),
        ("gpj.\u202eexe", "gpj.�exe"),  # shows the name backwards
        ("\x9b31m", "�31m"),  # an escape code in one character
        ("\ud800", "�"),
        ("", ""),
    ],
)
def test_nothing_unprintable_reaches_the_terminal(text: bytes | str, shown: str) -> None:
    """Control characters and marks become U+FFFD; everything else stays."""
    assert printable(text) == shown


@given(st.text(max_size=300) | st.binary(max_size=300), st.integers(1, 50))
def test_any_text_is_printable_and_short(text: bytes | str, limit: int) -> None:
    """Whatever a stranger sends."""
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit


@pytest.mark.parametrize(("length", "shown"), [(5, "aaaaa"), (6, "aaaa…")])
def test_long_text_ends_with_an_ellipsis(length: int, shown: str) -> None:
    """Cut to the limit, the ellipsis included."""
    assert printable("a" * length, 5) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (KIB, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (10 * KIB, "10.0 KiB"),
        (99.9 * KIB, "99.9 KiB"),
        (100 * KIB, "100 KiB"),
        (999 * KIB, "999 KiB"),
        (1000 * KIB, "0.98 MiB"),  # never four digits
        (MIB, "1.00 MiB"),
        (3.2 * GIB, "3.20 GiB"),
        (700 * GIB, "700 GiB"),
        (2 * TIB, "2.00 TiB"),
        (5000 * TIB, "5000 TiB"),
    ],
)
def test_sizes_have_three_digits(count: float, shown: str) -> None:
    """Bytes are whole; above that three digits that count, in the unit that needs no fourth."""
    assert format_size(count) == shown
    assert format_rate(count) == f"{shown}/s"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (0.5, "1 s"),
        (45, "45 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (155, "2 min 35 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (12_000, "3 h 20 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d 0 h"),
        (439_200, "5 d 2 h"),
    ],
)
def test_durations_have_two_units(seconds: float, shown: str) -> None:
    """The largest that fits and the next smaller one."""
    assert format_duration(seconds) == shown


@pytest.mark.parametrize(("number", "shown"), [(0, "0 peers"), (1, "1 peer"), (2, "2 peers"), (1024, "1,024 peers")])
def test_one_is_singular(number: int, shown: str) -> None:
    assert counted(number, "peer") == shown
