"""When a torrent that is complete has given enough to others.

    ratio = bytes sent in all runs / bytes of the torrent

The torrent's size and not the bytes received is what is given back, as in Transmission 4: a ratio of 1 means
that one whole copy went out, also where the data was there before the first run, or came in part from
elsewhere. The time counts from when this run began to seed.

Spec: none.
Thread: pure.
Lock: none.
"""

from typing import NamedTuple

from torrent_client.text import format_duration


def share_ratio(uploaded: int, size: int) -> float:
    """Return how many copies of a torrent were given; 0 for one without a byte.

    Args:
        uploaded: bytes sent in all runs.
        size: bytes of the torrent.
    """
    return uploaded / size if size else 0.0


class SeedingGoals(NamedTuple):
    """What ends seeding, whichever comes first; nothing by default.

    Attributes:
        ratio: bytes sent in all runs, in multiples of the torrent's size.
        seconds: of seeding in this run.
    """

    ratio: float | None = None
    seconds: float | None = None

    def reached(self, uploaded: int, size: int, seconds: float) -> str | None:
        """Return which goal is reached, in words, or None.

        Args:
            uploaded: bytes sent in all runs.
            size: bytes of the torrent; without any there is nothing to give, and every ratio is reached.
            seconds: of seeding in this run.
        """
        if self.ratio is not None and uploaded >= self.ratio * size:
            return f"the ratio is {share_ratio(uploaded, size):.2f}"
        if self.seconds is not None and seconds >= self.seconds:
            return f"it has seeded for {format_duration(seconds)}"
        return None
