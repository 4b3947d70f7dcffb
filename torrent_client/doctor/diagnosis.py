"""What the doctor says: a finding for each thing that was looked at, and a verdict about all of them.

    topic    outcome  subject               text                                    seconds
    tracker  bad      udp://192.0.2.1:6969  no answer in 8 s                          (8.0)
             advice:  it is down, or something on the way blocks UDP

The verdict asks one question: who gives what is wanted? Everything else is a reason why nobody does.

Spec: none.
Thread: pure.
Lock: none.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a thing is: as it should be, worth knowing, broken, or switched off."""

    OK = "ok"
    NOTE = "note"
    BAD = "bad"
    OFF = "off"


class Supply(IntEnum):
    """What is to be expected of a peer or a web seed that has something."""

    NOTHING = 0
    STALLS = 1
    WAITS = 2
    GIVES = 3


class Cause(StrEnum):
    """What the verdict is about."""

    WORKS = "works"
    TORRENT = "torrent"
    DISK = "disk"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: what kind of thing: `torrent`, `disk`, `port`, `tracker`, `peer` ...
        subject: which one of them: a URL, an address; empty where there is only one.
        outcome: how it is.
        text: what came of it, for people.
        advice: what to do about it; empty where nothing is wrong.
        seconds: how long it took, where that tells something.
        supply: what is to be expected of it, if it is a peer or a web seed.
        pieces: those that it has, as a set of bits; of a magnet link bit 0, which is the metadata.
        facts: the numbers behind the text, for scripts.
    """

    topic: str
    subject: str
    outcome: Outcome
    text: str
    advice: str = ""
    seconds: float | None = None
    supply: Supply = Supply.NOTHING
    pieces: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_values(self) -> dict[str, Any]:
        """Return it as values that JSON knows."""
        seconds = None if self.seconds is None else round(self.seconds, 3)
        return {
            "type": "finding",
            "topic": self.topic,
            "subject": self.subject,
            "outcome": self.outcome.value,
            "text": self.text,
            "advice": self.advice,
            "seconds": seconds,
            "supply": self.supply.name.lower(),
            "facts": dict(self.facts),
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer.

    Attributes:
        cause: whether a download would work, or what is in its way.
        text: a sentence.
    """

    cause: Cause
    text: str


def conclude(findings: Sequence[Finding], wanted: int, *, of_magnet: bool = False) -> Verdict:
    """Return the verdict.

    Args:
        findings: all of them.
        wanted: the torrent's pieces as a set of bits; of a magnet link bit 0.
        of_magnet: what is wanted is the metadata.
    """
    for topic, cause in (("torrent", Cause.TORRENT), ("disk", Cause.DISK)):
        for finding in findings:
            if finding.topic == topic and finding.outcome is Outcome.BAD:
                return Verdict(cause, f"you would not download: {finding.text}")
    if not wanted:
        return Verdict(Cause.WORKS, "you would be done at once: there is nothing in it to download")
    suppliers = [finding for finding in findings if finding.supply and finding.pieces & wanted]
    if not suppliers:
        return Verdict(Cause.NOBODY, _why_nobody(findings, "the metadata" if of_magnet else "the file"))
    return _of_suppliers(suppliers, wanted, "the metadata" if of_magnet else "pieces")


def _of_suppliers(suppliers: Sequence[Finding], wanted: int, what: str) -> Verdict:
    """Return the verdict where somebody has something."""
    has = f"{_counted(suppliers)} {'has' if len(suppliers) == 1 else 'have'} {what} for you"
    best = max(finding.supply for finding in suppliers)
    if best is Supply.STALLS:
        return Verdict(Cause.NOBODY, f"you would hardly download: {has}, but nothing came when asked for a block")
    union = 0
    for finding in suppliers:
        union |= finding.pieces
    found = (union & wanted).bit_count()
    if found < wanted.bit_count():
        share = min(99, 100 * found // wanted.bit_count())
        return Verdict(
            Cause.NOBODY, f"you would get {share} % and then wait: {has}, but nobody that was reached has the rest"
        )
    if best is Supply.WAITS:
        return Verdict(Cause.WORKS, f"you would download once it is your turn: {has}, and nobody has let you yet")
    givers = sum(finding.supply is Supply.GIVES for finding in suppliers)
    more = f", {givers} gave some" if givers < len(suppliers) else ""
    return Verdict(Cause.WORKS, f"you would download: {has}{more}")


def _counted(suppliers: Sequence[Finding]) -> str:
    """Return `2 peers and 1 web seed`."""
    counts = Counter(finding.topic for finding in suppliers)
    return " and ".join(f"{count} {topic}{'' if count == 1 else 's'}" for topic, count in counts.items())


def _why_nobody(findings: Sequence[Finding], what: str) -> str:
    """Return the verdict where nobody has anything, and as much of the reason as is known."""
    peers = [finding for finding in findings if finding.topic == "peer" and finding.outcome is not Outcome.OFF]
    if not peers:
        return f"nobody has {what}: {_why_no_peers(findings)}"
    results = Counter(str(finding.facts["result"]) for finding in peers)
    parts = ", ".join(f"{count} {result}" for result, count in results.most_common())
    count = f"{len(peers)} peer{'' if len(peers) == 1 else 's'}"
    if any(finding.facts.get("connected") for finding in peers):
        return f"nobody has {what} for you: {count} called ({parts})"
    return f"nobody can be reached: {count} called ({parts})"


def _why_no_peers(findings: Sequence[Finding]) -> str:
    """Return why there was nobody to call."""
    reasons = []
    trackers = [finding for finding in findings if finding.topic == "tracker"]
    answered = [finding for finding in trackers if finding.outcome in (Outcome.OK, Outcome.NOTE)]
    if trackers:
        reasons.append("the trackers know nobody else" if answered else "no tracker answered")
    dht = [finding.outcome for finding in findings if finding.topic == "dht"]
    if dht and dht[0] is not Outcome.OFF:
        reasons.append("the DHT could not be reached" if dht[0] is Outcome.BAD else "the DHT knows no peers")
    if any(finding.topic == "web seed" for finding in findings):
        reasons.append("no web seed works")
    return " and ".join(reasons) or "there is nothing to find peers with"
