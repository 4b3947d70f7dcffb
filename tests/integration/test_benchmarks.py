"""The benchmarks, end to end with a few megabytes: a run of each kind, and the command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from thesis.benchmarks.clients import CLIENTS
from thesis.benchmarks.machine import REPOSITORY
from thesis.benchmarks.network import Network
from thesis.benchmarks.torrents import Work
from thesis.benchmarks.trials import Idling, Lab, Seeding, Swarm, Trial

MIB = 1 << 20
WORK = Work(2 * MIB)
OURS = CLIENTS["ours"]


@pytest.mark.parametrize(
    "trial",
    [Seeding(WORK, OURS), Swarm(WORK, OURS, leechers=2), Idling(WORK, OURS, peers=3, seconds=0.2)],
    ids=["seeding", "swarm", "idling"],
)
def test_a_run_costs_time_and_memory(tmp_path: Path, trial: Trial) -> None:
    """Verified by the run itself, which fails when a file is wrong."""
    lab = Lab(tmp_path, Network(is_own=False))
    result = trial.run(lab)
    assert result.wall > 0
    assert result.peak_rss > MIB
    if isinstance(trial, Swarm):
        assert result.sent_by_seed is not None
        assert result.sent_by_seed >= WORK.size
    assert [path.name for path in tmp_path.iterdir()] == [lab.payload(WORK).root.name]


def test_the_command_measures_and_reports(tmp_path: Path) -> None:
    """Our client and libtorrent's, from a libtorrent seeder."""
    results = tmp_path / "runs.jsonl"
    command = [sys.executable, "-m", "thesis.benchmarks", "libtorrent-seeders", "--quick"]
    command += ["--clients", "ours,libtorrent", "--results", str(results), "--dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert [record["record"] for record in records] == ["session", "run", "run"], done.stderr
    page = (tmp_path / "runs" / "report.md").read_text(encoding="utf-8")
    assert "| 1 | ours |" in page
    assert "| 1 | libtorrent |" in page
