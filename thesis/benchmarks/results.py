"""What is kept: JSON lines, one for each session and one for each run, appended to a file.

A session line tells when, on which machine, with which commit and versions; every other line names its session. Because
runs are only ever appended, and each says which one it is, a benchmark that was stopped goes on where it was.
"""

import datetime as dt
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thesis.benchmarks import machine
from thesis.benchmarks.trials import Measurement

Record = dict[str, Any]
SAME = ("cpu", "cores", "kernel", "memory")  # facts of the machine that runs in one file must share


class ResultsError(Exception):
    """A file of results cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """Which run it is."""

    case: str
    x: str | float  # the value on the case's axis
    series: str  # the row: a client, or a variant of one
    round: int


def read_records(path: Path) -> list[Record]:
    """Return all records of a file, none if there is no file; a last line that was cut off does not count.

    Raises:
        ResultsError: another line is no JSON object.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            if number < len(lines):
                raise ResultsError(f"{path}, line {number}: {error}") from error
    return records


def of_kind(records: list[Record], kind: str) -> list[Record]:
    """Return the records of one kind: session, run, failed or absent."""
    return [record for record in records if record.get("record") == kind]


class Results:
    """A file of results: what is in it, and what comes to it."""

    def __init__(self, path: Path, scale: str) -> None:
        """Read the file, if there is one.

        Raises:
            ResultsError: it holds runs of other code, of another machine or of another size.
        """
        self._path = path
        self._session = uuid.uuid4().hex[:12]
        self._facts: Record = {"scale": scale, "code": machine.code(), "machine": machine.describe()}
        records = read_records(path)
        for session in of_kind(records, "session"):
            if reason := difference(session, self._facts):
                raise ResultsError(f"{path} holds runs of {reason}: move it away, or name another file with --results")
        self._done = {key_of(record) for record in of_kind(records, "run")}
        self._is_cut_off = bool(records) and not path.read_bytes().endswith(b"\n")

    def has(self, key: Key) -> bool:
        """Return whether this run is in the file."""
        return key in self._done

    def begin(self, versions: Mapping[str, str], arguments: Mapping[str, object]) -> None:
        """Write the session's line."""
        date = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        facts = {"date": date, "commit": machine.commit(), **self._facts}
        self._write({"record": "session", **facts, "versions": dict(versions), "arguments": dict(arguments)})

    def add(self, key: Key, facts: Mapping[str, object], run: Measurement) -> None:
        """Write a run."""
        self._done.add(key)
        self._write({"record": "run", **asdict(key), **facts, **asdict(run)})

    def add_failure(self, key: Key, reason: str) -> None:
        """Write that a run failed."""
        self._write({"record": "failed", **asdict(key), "reason": reason})

    def add_absence(self, case: str, series: str, reason: str) -> None:
        """Write that a client was left out."""
        self._write({"record": "absent", "case": case, "series": series, "reason": reason})

    def _write(self, record: Record) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"session": self._session, **record}, default=str) + "\n"
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + line if self._is_cut_off else line)
        self._is_cut_off = False


def key_of(record: Record) -> Key:
    """Return which run a record is about."""
    return Key(record["case"], record["x"], record["series"], record["round"])


def difference(session: Record, facts: Record) -> str:
    """Return in what a session differs from these facts so that its runs do not compare; empty when they do."""
    if session.get("scale") != facts["scale"]:
        return f"another size ({session.get('scale')})"
    if session.get("code") != facts["code"]:
        return f"other code ({session.get('code')}, here is {facts['code']})"
    there, here = session.get("machine", {}), facts["machine"]
    different = [name for name in SAME if there.get(name) != here.get(name)]
    return f"another machine ({', '.join(different)})" if different else ""
