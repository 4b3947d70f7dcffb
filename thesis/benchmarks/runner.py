"""Runs the cases: every client in turn, round after round, until the file of results has all of it.

    for each case, for each point of its axis:   round 1: A B C   round 2: A B C   ...

Turns, because a machine that slows down then slows down all of them. A run that other programs disturbed is tried
again, and marked when it stays disturbed. What is in the file already is not run again.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from thesis.benchmarks.cases import Case, Point, Scale
from thesis.benchmarks.processes import RunFailed
from thesis.benchmarks.results import Key, Results
from thesis.benchmarks.trials import Download, Lab, Measurement, Trial

Say = Callable[[str], None]


class Runner:
    """What one invocation does."""

    def __init__(self, lab: Lab, results: Results, scale: Scale, say: Say) -> None:
        """Say goes to the user."""
        self._lab = lab
        self._results = results
        self._scale = scale
        self._say = say
        self._warm: dict[tuple[type, str], bool] = {}  # kind of trial and client: whether its warm-up succeeded
        self._absent: set[str] = set()

    def run(
        self, cases: Iterable[Case], is_client: Callable[[str], bool], is_point: Callable[[str | float], bool]
    ) -> None:
        """Run what is missing of these cases, with the clients and at the points that are wanted."""
        for case in cases:
            for point in filter(lambda point: is_point(point.x), case.points(self._scale)):
                trials = {name: trial for name, trial in point.trials.items() if is_client(trial.subject.name)}
                self._run_point(case, point, self._present(case, trials))

    def _present(self, case: Case, trials: Mapping[str, Trial]) -> dict[str, Trial]:
        """Return the trials that can be run here, with a word about the others."""
        present = {}
        for name, trial in trials.items():
            reason = trial.why_not(self._lab)
            if not reason:
                present[name] = trial
            elif (word := f"{case.name}: {name} is left out: {reason}") not in self._absent:
                self._absent.add(word)
                self._say(word)
                self._results.add_absence(case.name, name, reason)
        return present

    def _run_point(self, case: Case, point: Point, trials: Mapping[str, Trial]) -> None:
        rounds = case.rounds(self._scale)
        failed: set[str] = set()
        for number in range(1, rounds + 1):
            for name, trial in trials.items():
                key = Key(case.name, point.x, name, number)
                if name in failed or self._results.has(key):
                    continue
                title = f"{case.name} {point.x} {name} {number}/{rounds}"
                try:
                    self._warm_up(trial)
                    run = self._undisturbed(trial)
                except RunFailed as failure:
                    failed.add(name)
                    self._say(f"{title} failed: {failure}")
                    self._results.add_failure(key, str(failure))
                    continue
                mark = f", disturbed: {run.other_share:.0%} other load" if run.disturbed else ""
                self._say(f"{title}: {run.wall:.2f} s, CPU {run.cpu:.2f} s{mark}")
                self._results.add(key, facts_of(trial), run)

    def _warm_up(self, trial: Trial) -> None:
        """Run a program once with a small torrent, so that it and its libraries are in memory."""
        kind = (type(trial), trial.subject.name)
        if self._scale.warm_up and kind not in self._warm:
            trial.warm_up().run(self._lab)
            self._warm[kind] = True

    def _undisturbed(self, trial: Trial) -> Measurement:
        """Run until nothing else disturbs it, as often as the scale allows; the least disturbed run."""
        best = trial.run(self._lab)
        for _ in range(self._scale.repeats):
            if not best.disturbed:
                break
            again = trial.run(self._lab)
            best = min(best, again, key=lambda run: run.other_share)
        return best


def facts_of(trial: Trial) -> dict[str, object]:
    """Return a trial's settings, for the record."""
    names = [field.name for field in dataclasses.fields(trial) if field.name not in ("work", "subject", "link")]
    settings = {name: getattr(trial, name) for name in names}
    link = {"link": str(trial.link)} if isinstance(trial, Download) and trial.link else {}
    kind = {"kind": type(trial).__name__.lower(), "client": trial.subject.name}
    return {**kind, **dataclasses.asdict(trial.work), **settings, **link}
