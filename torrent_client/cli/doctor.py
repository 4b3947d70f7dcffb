"""The `doctor` command: it says why a download does not begin.

    ok    tracker   http://tracker.example/announce: 12 peers; 3 seeders, 9 downloading (with us)   0.2 s
    bad   peer      192.0.2.7:6881: timed out                                                       4.0 s
                      -> it has gone, or nobody can call it (no port forwarded); if all do: your firewall
    you would download: 2 peers have pieces for you

It writes nothing, and takes back what it announces.

Spec: none.
Thread: main; the examination has its own.
Lock: none.
"""

import json
from argparse import Namespace
from pathlib import Path

from torrent_client.cli.exit_codes import ExitCode, exit_code
from torrent_client.cli.get import Interruption, config_of, default_state_directory, read_torrent
from torrent_client.doctor.diagnosis import Cause, Finding, Outcome, Verdict
from torrent_client.doctor.examination import Examination
from torrent_client.doctor.patient import Patient
from torrent_client.errors import MetainfoError
from torrent_client.magnet import MagnetLink
from torrent_client.text import printable
from torrent_client.torrent_parser import TorrentFile

_CODES = {
    Cause.WORKS: ExitCode.OK,
    Cause.TORRENT: ExitCode.BAD_TORRENT,
    Cause.DISK: ExitCode.STORAGE,
    Cause.NOBODY: ExitCode.STALLED,
}

ADVICE_INDENT = 20
"""Columns before an advice: below the finding's text."""


def examine(options: Namespace) -> int:
    """Look at everything that a download needs, print what was found; return the exit code."""
    report = _json_report if options.json else _Report(quiet=options.quiet).show
    try:
        source = read_torrent(options.torrent).with_trackers(options.tracker)
    except MetainfoError as error:
        report(Finding("torrent", "", Outcome.BAD, printable(str(error), 1000)))
        verdict = Verdict(Cause.TORRENT, f"you would not download: {printable(str(error), 1000)}")
        return _close(verdict, int(exit_code(error)), options)
    interruption = Interruption()
    with interruption.handled():
        examination = Examination(_patient(source, options), lambda: interruption.signal is not None)
        for finding in examination.findings():
            report(finding)
    verdict = examination.verdict()
    if interruption.signal is not None:
        verdict = Verdict(verdict.cause, f"stopped early; as far as is known, {verdict.text}")
        return _close(verdict, 128 + interruption.signal, options)
    return _close(verdict, _CODES[verdict.cause], options)


def _patient(source: TorrentFile | MagnetLink, options: Namespace) -> Patient:
    return Patient(
        source=source,
        config=config_of(options),
        output=Path(options.output),
        state_directory=options.state_dir or default_state_directory(),
        given_peers=tuple(options.peer),
        given_web_seeds=tuple(options.web_seed),
    )


def _close(verdict: Verdict, code: int, options: Namespace) -> int:
    """Print the verdict."""
    if options.json:
        value = {"type": "verdict", "works": verdict.cause is Cause.WORKS, "cause": verdict.cause.value}
        print(json.dumps({**value, "text": verdict.text, "exit_code": int(code)}), flush=True)
    else:
        print(verdict.text if options.quiet else f"\n{verdict.text}", flush=True)
    return int(code)


def _json_report(finding: Finding) -> None:
    print(json.dumps(finding.as_values()), flush=True)


class _Report:
    """Prints findings for people, each advice once.

    Args:
        quiet: print nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._told: set[str] = set()

    def show(self, finding: Finding) -> None:
        """Print one finding."""
        if self._quiet:
            return
        subject = f"{finding.subject}: " if finding.subject else ""
        seconds = f" ({finding.seconds:.1f} s)" if finding.seconds is not None else ""
        print(f"{finding.outcome.value:<5} {finding.topic:<9} {subject}{finding.text}{seconds}", flush=True)
        if finding.advice and finding.advice not in self._told:
            self._told.add(finding.advice)
            print(f"{'':<{ADVICE_INDENT}}-> {finding.advice}", flush=True)
