"""The command line with several torrents, goals, and the seed command; and what it shows."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.fake_peer import metainfo
from tests.support import FakeClock, payload
from torrent_client.cli.arguments import parse
from torrent_client.cli.get import goals_of
from torrent_client.cli.main import main
from torrent_client.display import overview, picture
from torrent_client.seeding_goals import SeedingGoals
from torrent_client.stats import TorrentState, TorrentStats
from torrent_client.views import LineView

SIZE = 100_003


def make(tmp_path: Path, name: str, seed: int) -> Path:
    """Write a torrent, and its data into `data`."""
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / name).write_bytes(payload(SIZE, seed))
    path = tmp_path / f"{seed}.torrent"
    path.write_bytes(metainfo(payload(SIZE, seed), name=name))
    return path


def run(tmp_path: Path, *arguments: str | Path) -> int:
    """Run the program with a state directory of its own, on any port."""
    return main([*map(str, arguments), "--state-dir", str(tmp_path / "state"), "--port", "0"])


def reports(output: str) -> list[tuple[str, str | None]]:
    """Return type and name of each JSON line that is no progress."""
    lines = [json.loads(line) for line in output.splitlines()]
    return [(line["type"], line["name"]) for line in lines if line["type"] != "progress"]


def snapshot(number: int = 0, **changes: object) -> TorrentStats:
    """Return a snapshot of a torrent that downloads."""
    facts: dict[str, object] = dict.fromkeys(TorrentStats.__slots__, 0)
    facts |= {"name": f"torrent {number}", "info_hash": f"{number:040x}", "state": TorrentState.DOWNLOADING}
    facts |= {"size": 1000, "bytes_done": 250, "peers": (), "trackers": (), "piece_states": bytes(4)}
    facts |= {"waiting_for": None, "error": None, "eta": None, "ratio": 0.5, "seeding": False}
    return TorrentStats(**(facts | changes))  # type: ignore[arg-type]


def drawn(thing: object, width: int = 120) -> str:
    """Return what a terminal would show."""
    console = Console(width=width, file=io.StringIO(), record=True, highlight=False)
    console.print(thing)
    return console.export_text()


def test_several_torrents_have_a_final_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They may be named before and after options; both are there already, so that it ends at once."""
    one, two = make(tmp_path, "one", 1), make(tmp_path, "two", 2)
    assert run(tmp_path, one, "-o", tmp_path / "data", two, "--json") == 0
    assert reports(capsys.readouterr().out) == [("complete", "one"), ("complete", "two")]


def test_a_bad_torrent_does_not_keep_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has its line, and its code is the process's."""
    bad = tmp_path / "bad.torrent"
    bad.write_bytes(b"nonsense")
    assert run(tmp_path, bad, make(tmp_path, "one", 1), "-o", tmp_path / "data", "--json") == 3
    assert reports(capsys.readouterr().out) == [("error", str(bad)), ("complete", "one")]


def test_the_same_torrent_twice_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is begun, and a sentence says why."""
    one = make(tmp_path, "one", 1)
    assert run(tmp_path, one, one, "-o", tmp_path / "out") == 2
    assert "error: one is given twice" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_torrents_of_one_path_are_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both would write `same`; nothing is begun."""
    assert run(tmp_path, make(tmp_path, "same", 1), make(tmp_path, "same", 2), "-o", tmp_path / "out") == 2
    assert "would write the same file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_seed_ends_by_its_goal_with_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The data has another name than the torrent gives it."""
    torrent = make(tmp_path, "one", 1)
    data = (tmp_path / "data" / "one").rename(tmp_path / "other")
    assert run(tmp_path, "seed", torrent, "--data", data, "--seed-time", "0.01") == 0
    assert "seeding ended: it has seeded for" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "code"), [("shorter", 6), ("absent", 4), ("directory", 4)])
def test_seed_refuses_what_is_not_the_data(
    kind: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each refusal is one sentence."""
    torrent, data = make(tmp_path, "one", 1), tmp_path / "mine"
    if kind == "shorter":
        data.write_bytes(payload(SIZE, 1)[:-1])
    elif kind == "directory":
        data.mkdir()
    assert run(tmp_path, "seed", torrent, "--data", data) == code
    assert "error: " in capsys.readouterr().err


def test_goals_come_from_the_command_line() -> None:
    """Minutes become seconds; none is none."""
    assert goals_of(parse(["x", "--seed-ratio", "1.5", "--seed-time", "2"])) == SeedingGoals(1.5, 120)
    assert goals_of(parse(["x"])) == SeedingGoals()


@pytest.mark.parametrize("words", [["--seed-ratio", "0"], ["--seed-time", "x"], ["--nonsense"], ["-o", "d", "y", "-w"]])
def test_wrong_words_exit_with_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A goal of nothing is one as well."""
    with pytest.raises(SystemExit) as ending:
        parse(["x", *words])
    assert ending.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_an_overview_has_a_row_for_each_torrent_and_the_totals() -> None:
    """State, percentage, ratio, what it waits for, and what ended it."""
    text = drawn(
        overview(
            [
                snapshot(1, waiting_for="asking for peers"),
                snapshot(2, state=TorrentState.COMPLETE, bytes_done=1000, seeding=True, ratio=1.25),
                snapshot(3, state=TorrentState.ERROR, error="the disk is full"),
            ],
            24,
        )
    )
    assert "3 torrents" in text
    assert "torrent 1: asking for peers" in text
    assert "torrent 3: the disk is full" in text
    for word in ("seeding", "25.0 %", "100.0 %", "1.25", "together 1.46 KiB of 2.93 KiB"):
        assert word in text


@pytest.mark.parametrize("height", [6, 8, 12, 40])
def test_an_overview_fits_the_terminal(height: int) -> None:
    """What is over gives way to what runs, and the rest is counted."""
    over = [snapshot(number, state=TorrentState.COMPLETE) for number in range(10)]
    running = [snapshot(number, waiting_for="nobody is there") for number in range(10, 20)]
    text = drawn(overview(over + running, height))
    assert text.count("\n") <= max(height, 7)
    assert "torrent 10" in text


def test_the_whole_picture_shows_the_ratio_and_that_it_seeds() -> None:
    """For one torrent."""
    text = drawn(picture(snapshot(state=TorrentState.COMPLETE, seeding=True, ratio=0.5), 120, 0.0))
    assert "seeding" in text
    assert "ratio 0.50" in text


def test_plain_lines_are_kept_apart_by_torrent(clock: FakeClock) -> None:
    """Each torrent has its own five seconds; one that is over is told of once."""
    output = io.StringIO()
    view = LineView(output, clock)
    done = snapshot(2, state=TorrentState.COMPLETE)
    for _ in range(3):
        view.show(snapshot(1), done)
        clock.advance(3)
    lines = output.getvalue().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["torrent 1", "torrent 2", "torrent 1"]
