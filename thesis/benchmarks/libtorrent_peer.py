"""libtorrent as a seeder or a leecher, tuned for loopback: the C++ client to compare with.

Run as a program of its own (``python libtorrent_peer.py leech|seed ...``) and importing nothing of this
package, so that its time and memory are libtorrent's and an interpreter's. The leecher announces to the
torrent's tracker and exits as soon as every piece is verified and written. The seeder trusts its file and
serves until it is killed. ``--set NAME=VALUE`` changes any libtorrent setting and ``--disk`` the disk
backend, to repeat the tuning.
"""

import argparse
import os
import sys
from pathlib import Path

import libtorrent as lt

DISK_BACKENDS = ("default", "mmap", "pread", "posix")
ALERTS = lt.alert.category_t.error_notification | lt.alert.category_t.status_notification
WAIT = 60_000  # milliseconds; a wake-up without an alert is harmless

#: What both sides need: no discovery, no uTP (slow on loopback), no encryption, no limits.
COMMON: dict[str, object] = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "in_enc_policy": 2,  # disabled
    "out_enc_policy": 2,
    "allow_multiple_connections_per_ip": True,
    "unchoke_slots_limit": -1,
    "mixed_mode_algorithm": 0,  # prefer TCP
    "alert_mask": ALERTS,
}
#: Nothing: of request queues, socket and disk buffers, threads, tick and picker settings (libtorrent 2.1.1,
#: 256 and 768 MiB) none moved time or CPU beyond the noise. The disk backend does, see BEST_DISK.
LEECHER: dict[str, object] = {}
#: A send buffer that keeps the disk and the socket apart: 30 % less CPU and time than the defaults.
SEEDER: dict[str, object] = {
    "send_buffer_watermark": 4 << 20,  # bytes
    "send_buffer_low_watermark": 1 << 20,  # bytes
    "send_buffer_watermark_factor": 150,  # percent of the upload rate
}
#: Leeching, pread took 0.39 s for 256 MiB, mmap 0.49 s (and 300 MiB resident), posix 0.66 s. Seeding, posix
#: (no disk threads to wake) cost 0.20 s of CPU, pread 0.34 s. libtorrent 2.0 has no pread: its default.
BEST_DISK = {"leech": "pread", "seed": "posix"}


def start_session(listen: str, settings: dict[str, object], disk: str) -> lt.session:
    """Return a running session that listens on ``ADDRESS:PORT`` with COMMON and settings."""
    parameters = lt.session_params()
    parameters.settings = {**COMMON, **settings, "listen_interfaces": listen}  # type: ignore[typeddict-item]
    parameters.disk_io_constructor = f"{disk}_disk_io_constructor"  # unknown names mean the default
    return lt.session(parameters)


def torrent_parameters(torrent: Path, directory: Path) -> lt.add_torrent_params:
    """Return what adds the torrent, started at once and never queued."""
    parameters = lt.load_torrent_file(str(torrent))
    parameters.save_path = str(directory)
    parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    return parameters


def wait_for(session: lt.session, kind: type[lt.alert]) -> None:
    """Wait until an alert of this kind comes; exit with status 1 when the torrent has an error instead."""
    while True:
        session.wait_for_alert(WAIT)
        for alert in session.pop_alerts():
            if isinstance(alert, kind):
                return
            if isinstance(alert, lt.torrent_error_alert | lt.file_error_alert):
                sys.exit(alert.message())


def leech(arguments: argparse.Namespace) -> None:
    """Download the torrent, wait for the last byte to be written, and leave without goodbyes."""
    session = start_session(arguments.listen, {**LEECHER, **arguments.settings}, arguments.disk)
    handle = session.add_torrent(torrent_parameters(arguments.torrent, arguments.directory))
    wait_for(session, lt.torrent_finished_alert)
    handle.flush_cache()
    wait_for(session, lt.cache_flushed_alert)
    os._exit(0)


def seed(arguments: argparse.Namespace) -> None:
    """Serve the torrent until killed; the file is taken to be right, as after a restart with resume data."""
    session = start_session(arguments.listen, {**SEEDER, **arguments.settings}, arguments.disk)
    parameters = torrent_parameters(arguments.torrent, arguments.directory)
    if parameters.ti is not None:
        parameters.have_pieces = [True] * parameters.ti.num_pieces()
    parameters.flags |= lt.torrent_flags.no_verify_files
    session.add_torrent(parameters)
    while True:
        session.wait_for_alert(WAIT)
        session.pop_alerts()


def setting(text: str) -> tuple[str, object]:
    """Parse NAME=VALUE; a value of digits is a number, else True, False or text."""
    name, _, value = text.partition("=")
    if value.lstrip("-").isdigit():
        return name, int(value)
    return name, {"True": True, "False": False}.get(value, value)


def main() -> None:
    """Parse the command line and run one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=("leech", "seed"))
    parser.add_argument("torrent", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--disk", choices=DISK_BACKENDS, help="default: the best one for the side")
    parser.add_argument("--set", dest="changes", type=setting, action="append", default=[])
    arguments = parser.parse_args()
    arguments.settings = dict(arguments.changes)
    arguments.disk = arguments.disk or BEST_DISK[arguments.side]
    if arguments.side == "leech":
        leech(arguments)
    else:
        seed(arguments)


if __name__ == "__main__":
    main()
