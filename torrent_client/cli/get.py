"""The download command: torrents from their files to their end, with whatever view the user wants.

Spec: the guide's Tasks 11 to 15.
Thread: main; it draws, and waits for signals.
Lock: none.
"""

import json
import logging
import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from torrent_client.cli.exit_codes import ExitCode, exit_code
from torrent_client.cli.keyboard import HELP, Keyboard, LimitKeys
from torrent_client.config import Config
from torrent_client.download_manager import DownloadManager
from torrent_client.download_options import DownloadOptions
from torrent_client.errors import MetainfoError
from torrent_client.file_selection import FileSelection
from torrent_client.magnet import MagnetLink
from torrent_client.open_files import share_out
from torrent_client.proxy import parse_proxy
from torrent_client.seeding_goals import SeedingGoals
from torrent_client.session import Download, Job, Session
from torrent_client.stats import TorrentState, TorrentStats
from torrent_client.text import format_duration, format_size, printable
from torrent_client.torrent_parser import TorrentFile
from torrent_client.views import LineView, SilentView, View, chosen_files

REFRESH = 0.5
"""Seconds between two pictures: speeds change once a second, and a terminal should not flicker."""

JSON_INTERVAL = 1.0
"""Seconds between two lines of `--json`."""

SIGNAL_TICK = 0.1
"""Seconds after which a signal is noticed at the latest: a wait in the main thread goes on after a handler."""


class Interruption:
    """SIGINT and SIGTERM: the first asks to stop, the second ends the program at once."""

    def __init__(self) -> None:
        """Begin with none."""
        self.signal: int | None = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle both signals inside the block."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number


def get(options: Namespace) -> int:
    """Download torrents; return the exit code."""
    torrents, unreadable = _read_torrents(options)
    torrents = [torrent.with_trackers(options.tracker) for torrent in torrents]
    if options.list_files or options.metadata_only:
        for torrent in torrents:
            if isinstance(torrent, TorrentFile) and options.list_files:
                list_files(torrent, as_json=options.json)
            elif isinstance(torrent, TorrentFile):
                _tell(options, f"{printable(torrent.name, 60)}: a .torrent file has the metadata already")
        torrents = [torrent for torrent in torrents if isinstance(torrent, MagnetLink)]
    code = run([Job(torrent, _choices(options)) for torrent in torrents], _config(options), options) if torrents else 0
    return ExitCode.BAD_TORRENT if unreadable else code


def _choices(options: Namespace) -> DownloadOptions:
    """Return what the user wants of each torrent."""
    has_goal = options.seed_ratio is not None or options.seed_time is not None
    return DownloadOptions(
        output=options.output,
        state_directory=options.state_dir or default_state_directory(),
        sequential=options.sequential,
        seed=options.seed or has_goal or options.super_seed,
        super_seed=options.super_seed,
        files=FileSelection(options.select_file, options.file_priority, options.first_last),
        given_peers=tuple(options.peer),
        web_seeds=tuple(options.web_seed),
        goals=goals_of(options),
        max_download_rate=options.max_torrent_download_rate,
        max_upload_rate=options.max_torrent_upload_rate,
        save_torrent=options.save_torrent or options.metadata_only,
        metadata_only=options.metadata_only or options.list_files,
    )


def _config(options: Namespace) -> Config:
    return config_of(options)._replace(stop_after_idle=options.stop_timeout)


def config_of(options: Namespace) -> Config:
    """Return the limits that the user chose."""
    return Config(
        listen_port=options.port,
        max_peers=options.max_peers,
        max_peers_total=max(options.max_peers, Config().max_peers_total),
        max_download_rate=options.max_download_rate,
        max_upload_rate=options.max_upload_rate,
        encryption=options.encryption,
        pex=not options.no_pex,
        proxy=options.proxy or "",
        portmap=not options.no_portmap,
        lsd=not options.no_lsd,
        dht=not options.no_dht,
        dht_bootstrap=tuple(options.dht_bootstrap) or None,
    )


def goals_of(options: Namespace) -> SeedingGoals:
    """Return what is to end seeding."""
    return SeedingGoals(options.seed_ratio, None if options.seed_time is None else 60 * options.seed_time)


def run(jobs: Sequence[Job], config: Config, options: Namespace) -> int:
    """Run torrents until each is done or the user has had enough; return the exit code.

    Raises:
        TorrentError: they cannot begin.
    """
    interruption = Interruption()
    config = config._replace(max_open_files=share_out(config.max_open_files, len(jobs)))
    with interruption.handled():
        with Session(config, state_directory=jobs[0].options.state_directory) as session:
            _tell_port(session, options)
            managers = session.add_all(jobs)
            _watch(session, managers, options, interruption)
            if interruption.signal is not None and not options.quiet:
                print("stopping; once more ends at once", file=sys.stderr)
        several = len(jobs) > 1
        codes = [_report(session, manager, options, interruption, is_one_of_several=several) for manager in managers]
    errors = [code for code in codes if code < ExitCode.INTERRUPTED]
    return next(filter(None, errors), max(codes))


def _tell_port(session: Session, options: Namespace) -> None:
    """Say where peers can reach us, if that is not where the user thinks."""
    if session.config.proxy:
        proxy = parse_proxy(session.config.proxy)
        peers = "trackers, web seeds and peers" if proxy.carries_peers else "trackers and web seeds, but no peers,"
        _tell(options, f"{peers} through {proxy}, nothing past it: no UDP trackers, DHT, local peers, incoming peers")
    elif options.port not in (0, session.port):
        _tell(options, f"port {options.port} is taken; listening on port {session.port}")
    elif options.port == 0 or not sys.stderr.isatty():
        _tell(options, f"listening on port {session.port}")


def list_files(torrent: TorrentFile, *, as_json: bool) -> None:
    """Print the number, size and path of each file, as `--select-file` counts them."""
    for number, file in enumerate(torrent.files, 1):
        if file.is_padding:
            continue
        if as_json:
            print(json.dumps({"type": "file", "index": number, "length": file.length, "path": str(file.path)}))
        else:
            print(f"{number:>5}  {format_size(file.length):>10}  {printable(str(file.path), 1000)}")


def default_state_directory() -> Path:
    """Return where state files go unless the user says otherwise."""
    import platformdirs

    return platformdirs.user_state_path("torrent-client") / "resume"


def _read_torrents(options: Namespace) -> tuple[list[TorrentFile | MagnetLink], bool]:
    """Read all .torrent files and links; tell whether one of several is bad, which does not keep the others."""
    torrents: list[TorrentFile | MagnetLink] = []
    unreadable = False
    for text in options.torrent:
        try:
            torrents.append(read_torrent(text))
        except MetainfoError as error:
            if len(options.torrent) == 1:
                if str(text).isidentifier() and not Path(text).exists():  # a mistyped command, perhaps
                    raise MetainfoError(f"{error}; nor is there such a command, see --help") from error
                raise
            unreadable = True
            print(f"error: {printable(str(error), 2000)}", file=sys.stderr)
            if options.json:
                _print_json({"type": "error", "info_hash": None, "name": str(text), "error": str(error)})
    return torrents, unreadable


def read_torrent(source: str | Path) -> TorrentFile | MagnetLink:
    """Read the .torrent file at a path, or a magnet link.

    Raises:
        MetainfoError: it is neither.
    """
    text = str(source)
    if text.lower().startswith("magnet:"):
        return MagnetLink.parse(text)
    if text.startswith(("http:", "https:")):
        raise MetainfoError("that is a link: download the .torrent file first, with a browser or curl")
    torrent = TorrentFile.from_file(text)
    for renamed in torrent.renamed:
        logging.getLogger(__name__).info("%s", printable(str(renamed)))
    return torrent


def _watch(session: Session, managers: Sequence[Download], options: Namespace, interruption: Interruption) -> None:
    """Show the torrents until each is complete (unless it seeds) or has failed, or the user has had enough."""
    interval = JSON_INTERVAL if options.json else REFRESH
    told: set[Download] = set()
    limit_keys = LimitKeys(session.limits, [manager.limits for manager in managers])
    with _view(options) as view, _keyboard(view) as keyboard:
        while interruption.signal is None and not all(manager.is_over for manager in managers):
            snapshots = [(manager, manager.is_over, manager.stats()) for manager in managers]
            view.keys = f"({HELP})" if keyboard.is_there else ""
            place = f"port {session.port} ({session.portmap})" if session.port else "through a proxy"
            if session.dht and len(snapshots) > 1:  # of one torrent the picture says more
                place += f"   DHT {session.dht.describe()}"
            view.note = f"{place}   {limit_keys.describe([stats.name for _, _, stats in snapshots])}"
            view.show(*(stats for _, _, stats in snapshots))
            for manager, is_over, stats in snapshots:
                if is_over:
                    manager.begin_stop("complete")  # the others go on
                if options.json and manager not in told:
                    _print_json(_as_values("progress", stats, session))
                if is_over:
                    told.add(manager)
            _pause(session, interval, interruption)
            rates = [(stats.download_rate, stats.upload_rate) for _, _, stats in snapshots]
            pressed = keyboard.pressed()
            limit_keys.press(pressed, rates)
            if "a" in pressed:
                session.announce_now()
        view.note = view.keys = ""
        view.show(*(manager.stats() for manager in managers))


def _pause(session: Session, seconds: float, interruption: Interruption) -> None:
    """Wait until it is time for the next picture, a torrent ends, or a signal comes."""
    deadline = time.monotonic() + seconds
    while interruption.signal is None and (left := deadline - time.monotonic()) > 0:
        if session.wait_for_change(min(left, SIGNAL_TICK)):
            return


def _keyboard(view: View) -> Keyboard:
    """Read keys where a picture is drawn; elsewhere somebody else may want them."""
    return Keyboard(sys.stdin if view.takes_keys else None)


def _view(options: Namespace) -> View:
    """Choose the view: none, a picture on a terminal, or lines."""
    if options.quiet or options.json or getattr(options, "trace", False):
        return SilentView()
    if options.verbose or not (sys.stdout.isatty() and sys.stderr.isatty()):
        return LineView(sys.stderr)
    from rich.console import Console

    from torrent_client.display import LiveView

    return LiveView(Console(stderr=True))


def _as_values(kind: str, stats: TorrentStats, session: Session) -> dict[str, Any]:
    """Return a snapshot as values that JSON knows; the piece states only as their counts, times as seconds from now."""
    value = stats._asdict()
    del value["piece_states"]
    value["peers"] = [peer._asdict() for peer in stats.peers]
    value["web_seeds"] = [web_seed._asdict() for web_seed in stats.web_seeds]
    value["trackers"] = [tracker._asdict() for tracker in stats.trackers]
    for tracker in value["trackers"]:
        tracker["next_in"] = round(max(0.0, tracker.pop("next_announce") - time.monotonic()), 1)
    limits = {"max_download_rate": session.limits.download.rate, "max_upload_rate": session.limits.upload.rate}
    dht = session.dht.as_values() if session.dht else None
    return {"type": kind, **value, "all_torrents": limits, "portmap": session.portmap.as_values(), "dht": dht}


def _print_json(value: dict[str, Any]) -> None:
    """Print an object as one line."""
    print(json.dumps(value), flush=True)


def _report(
    session: Session, manager: Download, options: Namespace, interruption: Interruption, *, is_one_of_several: bool
) -> int:
    """Say how a torrent ended, and return the exit code for it."""
    stats = manager.stats()
    prefix = f"{printable(stats.name, 60)}: " if is_one_of_several else ""
    if not isinstance(manager, DownloadManager) and manager.torrent and options.list_files and not manager.error:
        list_files(manager.torrent, as_json=options.json)
        return ExitCode.OK
    is_done = manager.state is TorrentState.COMPLETE and (not manager.options.seed or manager.goal_reached is not None)
    if manager.error:
        code, kind = int(exit_code(manager.error)), "error"
        print(f"error: {prefix}{printable(str(manager.error), 2000)}", file=sys.stderr)
    elif interruption.signal is not None and not is_done:
        code, kind = 128 + interruption.signal, "stopped"
        progress = f"stopped at {stats.pieces_done:,} of {stats.pieces_wanted:,} pieces"
        if not stats.pieces_total:
            progress = "stopped before the metadata was there"
        _tell(options, f"{prefix}{progress}{_sent(stats)}; the same command goes on")
    else:
        code, kind = ExitCode.OK, "complete"
        _tell(options, prefix + _success(manager, stats))
    if options.json:
        _print_json(_as_values(kind, stats, session))
    return code


def _tell(options: Namespace, text: str) -> None:
    if not options.quiet:
        print(text, file=sys.stderr)


def _success(manager: Download, stats: TorrentStats) -> str:
    saved_as = None if isinstance(manager, DownloadManager) else manager.saved_as
    saved = f"; the torrent is saved as {saved_as}" if saved_as else ""
    if manager.torrent is None or manager.options.metadata_only:
        return f"complete: the metadata is there{saved}"
    place = str(manager.options.output / manager.torrent.files[0].path.parts[0])
    if chosen := chosen_files(stats):
        place = f"{chosen} in {place}"
    ended = f"; seeding ended: {manager.goal_reached}" if manager.goal_reached else ""
    if not stats.downloaded:
        text = f"complete: {place} was there already, all {stats.pieces_wanted:,} pieces are good"
        return text + _sent(stats) + ended + saved
    rate = f", {format_size(stats.downloaded)} in {format_duration(manager.seconds)}"
    wasted = f", {format_size(stats.wasted)} wasted" if stats.wasted else ""
    return f"complete: {place}, every piece verified{rate}{wasted}{_sent(stats)}{ended}{saved}"


def _sent(stats: TorrentStats) -> str:
    return f", {format_size(stats.uploaded)} sent, ratio {stats.ratio:.2f}" if stats.uploaded else ""
