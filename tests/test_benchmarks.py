"""The parts of the benchmarks that compute: figures, tables, graphs, records, turns and torrents."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from thesis.benchmarks import machine, results
from thesis.benchmarks.__main__ import among, parse
from thesis.benchmarks.cases import CASES, SCALES, Case, Plot, Point, Scale
from thesis.benchmarks.client import Client
from thesis.benchmarks.clients import CLIENTS
from thesis.benchmarks.columns import COLUMNS, figures, spread
from thesis.benchmarks.network import LinkSpec, Network, netem
from thesis.benchmarks.processes import RunFailed
from thesis.benchmarks.report import gather, notes, table
from thesis.benchmarks.results import Key, Results, ResultsError, read_records
from thesis.benchmarks.runner import Runner, facts_of
from thesis.benchmarks.torrents import Work, file_lengths, format_size, make_payload, parse_size
from thesis.benchmarks.trials import Lab, Measurement
from thesis.benchmarks.variant import override
from torrent_client.config import Config
from torrent_client.torrent_parser import TorrentFile

MIB = 1 << 20
WORK = Work(MIB)


def run_record(series: str, number: int, wall: float, **more: object) -> dict[str, Any]:
    """Return a run of a case called `speed`."""
    measured = {"wall": wall, "cpu": wall / 2, "peak_rss": 30 * MIB, "other_share": 0.0, "disturbed": False}
    key = {"record": "run", "case": "speed", "x": 1, "series": series, "round": number}
    return {**key, "size": 64 * MIB, **measured, **more}


def speed_case(axis: str = "seeders") -> Case:
    """Return a case to report on."""
    columns = ("wall", "speed", "wire", "wall/limit", "wall/libtorrent")
    return Case("speed", "Speed", "How fast.", lambda _: (), columns, (Plot("speed"),), axis)


# --- figures ----------------------------------------------------------------------------------------------


def test_spread_is_the_median_and_the_range() -> None:
    """One number is only itself, none is a dash."""
    assert spread([3.0, 1.0, 2.0]) == "2.00 (1.00-3.00)"
    assert spread([1.26], 1) == "1.3"
    assert spread([]) == "-"


def test_a_ratio_is_taken_within_each_round() -> None:
    """A slow machine slows both sides of a round: the median of ratios does not see it, a ratio of medians would."""
    rows = {
        "ours": [run_record("ours", 1, 1.0), run_record("ours", 2, 4.0), run_record("ours", 3, 1.0)],
        "libtorrent": [run_record("libtorrent", 2, 2.0), run_record("libtorrent", 1, 0.5)],
    }
    assert figures(COLUMNS["wall/libtorrent"], "ours", rows) == [2.0, 2.0]


def test_the_limit_is_the_faster_one_of_them() -> None:
    """With two threads on two processors it is another one than on one processor."""
    rows = {name: [run_record(name, 1, wall)] for name, wall in (("ours", 3.0), ("limit-1", 2.0), ("limit-2", 1.0))}
    assert figures(COLUMNS["wall/limit"], "ours", rows) == [3.0]
    assert figures(COLUMNS["wall/limit"], "ours", {"ours": rows["ours"]}) == []


def test_a_link_is_measured_in_percent_of_a_raw_copy() -> None:
    """Twice its time is half its speed."""
    rows = {"ours": [run_record("ours", 1, 4.0)], "raw-copy": [run_record("raw-copy", 1, 2.0)]}
    assert figures(COLUMNS["of raw"], "ours", rows) == [50.0]


def test_what_a_run_cannot_tell_is_left_out() -> None:
    """Bytes on the wire are counted only in a network of one's own."""
    rows = {"ours": [run_record("ours", 1, 1.0, wire=None), run_record("ours", 2, 1.0, wire=96 * MIB)]}
    assert figures(COLUMNS["wire"], "ours", rows) == [1.5]


def test_a_swarm_receives_the_payload_once_for_each_leecher() -> None:
    """So one byte too many for each byte is 100 %, whatever their number."""
    facts = {"leechers": 4, "seed_rate": 32 * MIB, "sent_by_seed": 96 * MIB, "wasted": 64 * MIB}
    rows = {"ours": [run_record("ours", 1, 1.0, **facts)]}
    assert figures(COLUMNS["wasted"], "ours", rows) == [25.0]
    assert figures(COLUMNS["copies"], "ours", rows) == [1.5]
    assert figures(COLUMNS["wall/copy"], "ours", rows) == [0.5]


# --- report -----------------------------------------------------------------------------------------------


def test_a_table_has_a_row_for_each_client_at_each_point() -> None:
    """In the order of the axis; a column without any figure is left out."""
    records = [run_record("ours", 1, 2.0, x=8), run_record("ours", 1, 4.0), run_record("libtorrent", 1, 2.0)]
    assert table(gather(speed_case(), records)).splitlines() == [
        "| seeders | client | wall s | MiB/s | wall / libtorrent |",
        "| ---: | --- | ---: | ---: | ---: |",
        "| 1 | ours | 4.00 | 16.0 | 2.00 |",
        "| 1 | libtorrent | 2.00 | 32.0 | 1.00 |",
        "| 8 | ours | 2.00 | 32.0 | - |",
    ]


def test_notes_name_what_was_disturbed_failed_and_absent() -> None:
    """A failure that a later run made good is forgotten."""
    records = [
        run_record("ours", 1, 1.0, disturbed=True, other_share=0.5),
        run_record("ours", 2, 1.0),
        {"record": "failed", "case": "speed", "x": 1, "series": "ours", "round": 2, "reason": "was made good"},
        {
            "record": "failed",
            "case": "speed",
            "x": 1,
            "series": "aria2",
            "round": 1,
            "reason": "not done in 60 s\nmore",
        },
        {"record": "absent", "case": "speed", "series": "rtorrent", "reason": "rtorrent is not installed"},
        {"record": "absent", "case": "other", "series": "rtorrent", "reason": "of another case"},
    ]
    assert notes(gather(speed_case(), records), records) == [
        "Disturbed by other load: ours 1 of 2 runs (median 50% of the machine).",
        "aria2 at 1 failed: not done in 60 s",
        "rtorrent is left out: rtorrent is not installed.",
    ]


def test_the_same_records_give_the_same_report(tmp_path: Path) -> None:
    """Page and graphs, byte by byte: no date, no random names."""
    pytest.importorskip("matplotlib", reason="the graphs need thesis/requirements.txt")
    session = {
        "record": "session",
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "abc",
        "scale": "quick",
        "machine": {"cores": 2},
        "versions": {"ours": "abc"},
    }
    points = (("seeders", 1), ("seeders", 4), ("comparison", ""))
    runs = [run_record(name, 1, 1.0, case=case, x=x) for case, x in points for name in ("ours", "limit-1")]
    for name in ("one", "two"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in (session, *runs)), encoding="utf-8")
        # A process of its own, as matplotlib keeps its fonts open.
        command = [sys.executable, "-m", "thesis.benchmarks", "report", "--results", str(path)]
        subprocess.run(command, cwd=machine.REPOSITORY, check=True)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert [name.removesuffix(".svg") for name in files] == [
        "comparison-cpu",
        "comparison-rss",
        "comparison-speed",
        "report.md",
        "seeders-cpu",
        "seeders-speed",
    ]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    page = (tmp_path / "one" / "report.md").read_text(encoding="utf-8")
    assert "2026-01-02, commit abc, quick size." in page
    assert "](seeders-speed.svg)" in page


# --- records ----------------------------------------------------------------------------------------------


@pytest.fixture
def fixed_machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Return the facts of a machine that does not change, and that the test may change."""
    facts: dict[str, object] = {"cpu": "fast", "cores": 2, "kernel": "6", "memory": 1}
    monkeypatch.setattr(machine, "describe", lambda: dict(facts))
    monkeypatch.setattr(machine, "code", lambda: facts.get("code", "abc"))
    monkeypatch.setattr(machine, "commit", lambda: "abc")
    return facts


MEASUREMENT = Measurement(wall=1.0, cpu=1.0, peak_rss=1, other_share=0.0, disturbed=False)


@pytest.mark.usefixtures("fixed_machine")
def test_results_know_what_they_have(tmp_path: Path) -> None:
    """A second session in the same file goes on where the first one was, even if that was cut off while it wrote."""
    path, key = tmp_path / "new" / "runs.jsonl", Key("speed", 4, "ours", 1)
    first = Results(path, "quick")
    first.begin({"ours": "1"}, {})
    first.add(key, {"size": 1}, MEASUREMENT)
    with path.open("a") as file:
        file.write('{"record": "run", "cas')
    second = Results(path, "quick")
    assert second.has(key)
    assert not second.has(dataclasses.replace(key, round=2))
    second.begin({}, {})
    lines = path.read_text().splitlines()
    assert json.loads(lines[-1])["record"] == "session"


@pytest.mark.parametrize(
    ("change", "word"),
    [({"code": "def"}, "other code"), ({"cores": 4}, "another machine"), ({"scale": "full"}, "another size")],
)
def test_results_that_do_not_compare_are_not_mixed(
    tmp_path: Path, fixed_machine: dict[str, object], change: dict[str, str], word: str
) -> None:
    """Half of a table from before a change and half from after it would be no table."""
    path = tmp_path / "runs.jsonl"
    Results(path, "quick").begin({}, {})
    fixed_machine |= change
    with pytest.raises(ResultsError, match=word):
        Results(path, change.get("scale", "quick"))


def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    """Only the last one can be a cut."""
    path = tmp_path / "runs.jsonl"
    path.write_text('{"a": 1}\nnothing\n{"a": 2}\n')
    with pytest.raises(ResultsError, match="line 2"):
        read_records(path)
    assert read_records(tmp_path / "missing") == []
    assert results.of_kind([{"record": "run"}, {}], "run") == [{"record": "run"}]


# --- turns ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class FakeTrial:
    """Says that it ran; its shares of other load come one after the other."""

    subject: Client
    log: list[str]
    shares: tuple[float, ...] = (0.0,)
    reason: str = ""
    work: Work = WORK

    def why_not(self, _lab: Lab) -> str:
        """Give the reason."""
        return self.reason

    def warm_up(self) -> "FakeTrial":
        """Be another trial."""
        return dataclasses.replace(self, log=[])

    def run(self, _lab: Lab) -> Measurement:
        """Take note."""
        count = self.log.count(self.subject.name)
        self.log.append(self.subject.name)
        share = self.shares[min(count, len(self.shares) - 1)]
        if share < 0:
            raise RunFailed("no luck")
        return Measurement(wall=1.0, cpu=1.0, peak_rss=1, other_share=share, disturbed=share > 0.1)


def run_case(path: Path, trials: Sequence[FakeTrial], rounds: int, repeats: int = 0) -> list[str]:
    """Run fake trials and return what was said."""
    said: list[str] = []
    points = [Point(x, {trial.subject.name: trial for trial in trials}) for x in (1, 9)]
    case = dataclasses.replace(speed_case(), points=lambda _: points)
    scale = Scale("full", rounds, repeats, warm_up=True)
    lab: Lab = object()  # type: ignore[assignment]  # the trials are fakes
    Runner(lab, Results(path, "full"), scale, said.append).run([case], among(None), among(["1"]))
    return said


@pytest.mark.usefixtures("fixed_machine")
def test_clients_take_turns_and_nothing_is_run_twice(tmp_path: Path) -> None:
    """A B A B; a second command with one more round only runs that."""
    log: list[str] = []
    trials = [FakeTrial(CLIENTS["ours"], log), FakeTrial(CLIENTS["aria2"], log)]
    run_case(tmp_path / "runs", trials, rounds=2)
    assert log == ["ours", "aria2", "ours", "aria2"]
    run_case(tmp_path / "runs", trials, rounds=3)
    assert log[4:] == ["ours", "aria2"]


@pytest.mark.usefixtures("fixed_machine")
def test_a_disturbed_run_is_repeated_and_the_quietest_is_kept(tmp_path: Path) -> None:
    """And it stays marked when all were disturbed."""
    trial = FakeTrial(CLIENTS["ours"], [], (0.5, 0.2, 0.3, 0.0))
    said = run_case(tmp_path / "runs", [trial], rounds=1, repeats=2)
    assert len(trial.log) == 3
    assert said == ["speed 1 ours 1/1: 1.00 s, CPU 1.00 s, disturbed: 20% other load"]


@pytest.mark.usefixtures("fixed_machine")
def test_a_client_that_fails_or_is_not_there_is_left_out_with_a_word(tmp_path: Path) -> None:
    """The others go on."""
    log: list[str] = []
    failing = FakeTrial(CLIENTS["rtorrent"], log, (0.0, -1.0))
    absent = FakeTrial(CLIENTS["aria2"], log, reason="aria2c is not installed")
    said = run_case(tmp_path / "runs", [failing, absent, FakeTrial(CLIENTS["ours"], log)], rounds=3)
    assert log == ["rtorrent", "ours", "rtorrent", "ours", "ours"]
    assert "speed: aria2 is left out: aria2c is not installed" in said
    assert "speed 1 rtorrent 2/3 failed: no luck" in said
    kinds = [record["record"] for record in read_records(tmp_path / "runs")]
    assert kinds == ["absent", "run", "run", "failed", "run", "run"]


# --- cases ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES.keys())
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_case_has_points_columns_and_graphs_that_exist(case: Case, scale: Scale) -> None:
    """Nothing is found out after an hour of running."""
    points = case.points(scale)
    assert len({point.x for point in points}) == len(points) > 0
    assert set(case.columns) | {plot.column for plot in case.plots} <= set(COLUMNS)
    for point in points:
        for trial in point.trials.values():
            json.dumps(facts_of(trial))
            assert trial.warm_up().work.size <= trial.work.size


def test_what_does_not_fit_is_left_out_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of a run would be nobody's figure."""
    lab = Lab(tmp_path / "work", Network(is_own=True))
    monkeypatch.setattr(machine, "free_bytes", lambda _: 21 << 30)
    assert lab.why_no_room(Work(10 << 30)) == ""
    monkeypatch.setattr(machine, "free_bytes", lambda _: 20 << 30)
    assert lab.why_no_room(Work(10 << 30)) == f"{tmp_path} has no room for 10 GiB twice"


def test_the_command_line_names_cases_and_clients(capsys: pytest.CaptureFixture[str]) -> None:
    """A client that is none is an error before anything runs."""
    assert parse(["all", "--quick", "--clients", "ours,aria2"]).clients == ["ours", "aria2"]
    with pytest.raises(SystemExit):
        parse(["all", "--clients", "ours,nobody"])
    assert "no such clients: nobody" in capsys.readouterr().err


def test_a_variant_has_other_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are named, and a name that is none ends the program."""
    monkeypatch.setattr(Config.__new__, "__defaults__", Config.__new__.__defaults__)
    override({"max_queue_depth": 7})
    assert Config().max_queue_depth == 7
    assert Config().upload_slots == 4
    with pytest.raises(SystemExit, match="no such numbers: nothing"):
        override({"nothing": 1})


# --- torrents and links -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1 GiB", "256 KiB", "3 MiB", "17 B"])
def test_sizes_are_read_as_they_are_written(text: str) -> None:
    """In the largest unit that divides them."""
    assert format_size(parse_size(text)) == text
    with pytest.raises(ValueError, match="not a size"):
        parse_size("much")


@pytest.mark.parametrize("files", [1, 7])
def test_a_payload_is_what_its_torrent_says(tmp_path: Path, files: int) -> None:
    """Read by our parser, which had no part in making it; a copy with one wrong byte is found."""
    work = Work(100_000, 16_384, files)
    payload = make_payload(tmp_path / "payload", work)
    torrent = TorrentFile.from_file(payload.write_torrent(tmp_path / "t.torrent", "http://127.0.0.1:9/announce"))
    assert torrent.info_hash == payload.info_hash
    assert [file.length for file in torrent.files] == [length for _, length in file_lengths(work)]
    assert torrent.total_length == 100_000
    assert payload.piece_count == 7
    assert payload.matches(payload.root)
    copy = payload.paths_in(payload.root)[-1]
    copy.write_bytes(copy.read_bytes()[:-1] + b"?")
    assert not payload.matches(payload.root)
    copy.unlink()
    assert not payload.matches(payload.root)


def test_a_link_queues_a_round_trip_at_most() -> None:
    """And a hundred packets at least."""
    assert LinkSpec(200, 50).queue == 2_500_000
    assert LinkSpec(1, 1).queue == 150_000
    assert str(LinkSpec(100, 25, 0.1)) == "100 Mbit/s, 25 ms, 0.1 % loss"


def test_netem_is_told_the_same_as_our_own_link() -> None:
    """Its limit counts what is under way, too."""
    words = " ".join(netem(LinkSpec(100, 25, 0.1)))
    assert words.endswith("root netem limit 626 delay 25ms loss 0.1% rate 100000kbit")
