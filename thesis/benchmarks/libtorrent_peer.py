"""libtorrent as a seeder, a leecher or both, tuned for loopback: the C++ client to compare with.

Run as a program of its own (``python libtorrent_peer.py leech|seed|swarm ...``) and importing nothing of this
package, so that its time and memory are libtorrent's and an interpreter's. The leecher announces to the
torrent's tracker and exits as soon as every piece is verified and written. The seeder trusts its file. A member of a
swarm takes and gives, and goes on seeding when complete. Both print JSON lines with the keys that our client's have.
``--set NAME=VALUE`` changes any libtorrent setting and ``--disk`` the disk backend, to repeat the tuning.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import libtorrent as lt

DISK_BACKENDS = ("default", "mmap", "pread", "posix")
ALERTS = lt.alert.category_t.error_notification | lt.alert.category_t.status_notification
WAIT = 60_000  # milliseconds; a wake-up without an alert is harmless
SWARM_WAIT = 200  # milliseconds between looks at the clock and whether to stop
REPORT_INTERVAL = 1.0  # seconds between two JSON lines, as our client has it

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
BEST_DISK = {"leech": "pread", "seed": "posix", "swarm": "pread"}


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
    """Serve the torrent; the file is taken to be right, as after a restart with resume data."""
    serve(
        arguments,
        {**SEEDER, **arguments.settings},
        complete(torrent_parameters(arguments.torrent, arguments.directory)),
    )


def swarm(arguments: argparse.Namespace) -> None:
    """Take and give."""
    settings = {**LEECHER, **SEEDER, **arguments.settings}
    serve(arguments, settings, torrent_parameters(arguments.torrent, arguments.directory))


def complete(parameters: lt.add_torrent_params) -> lt.add_torrent_params:
    """Say that every piece is there and good."""
    if parameters.ti is not None:
        parameters.have_pieces = [True] * parameters.ti.num_pieces()
    parameters.flags |= lt.torrent_flags.no_verify_files
    return parameters


def serve(arguments: argparse.Namespace, settings: dict[str, object], parameters: lt.add_torrent_params) -> None:
    """Run the torrent until SIGTERM; print a line a second, one at completion and one at the end."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    is_written, next_report = bool(parameters.flags & lt.torrent_flags.no_verify_files), 0.0
    session = start_session(arguments.listen, settings, arguments.disk)
    handle = session.add_torrent(parameters)
    # On the torrent, not the session: the session's limit leaves out peers of the local network.
    handle.set_upload_limit(arguments.upload_limit)
    while not stop.is_set():
        session.wait_for_alert(SWARM_WAIT)
        for alert in session.pop_alerts():
            if isinstance(alert, lt.torrent_error_alert | lt.file_error_alert):
                sys.exit(alert.message())
            if isinstance(alert, lt.torrent_finished_alert):
                handle.flush_cache()
            if isinstance(alert, lt.cache_flushed_alert) and not is_written:
                is_written, next_report = True, 0.0
        if time.monotonic() >= next_report:
            report(handle, "progress", "complete" if is_written else "downloading")
            next_report = time.monotonic() + REPORT_INTERVAL
    report(handle, "stopped", "complete" if is_written else "downloading")
    os._exit(0)


def report(handle: lt.torrent_handle, kind: str, state: str) -> None:
    """Print a JSON line."""
    status = handle.status()
    facts = {
        "type": kind,
        "state": state,
        "uploaded": status.total_payload_upload,
        "wasted": status.total_failed_bytes + status.total_redundant_bytes,
        "pieces_done": status.num_pieces,
    }
    print(json.dumps(facts), flush=True)


SIDES = {"leech": leech, "seed": seed, "swarm": swarm}


def setting(text: str) -> tuple[str, object]:
    """Parse NAME=VALUE; a value of digits is a number, else True, False or text."""
    name, _, value = text.partition("=")
    if value.lstrip("-").isdigit():
        return name, int(value)
    return name, {"True": True, "False": False}.get(value, value)


def main() -> None:
    """Parse the command line and run one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("torrent", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--disk", choices=DISK_BACKENDS, help="default: the best one for the side")
    parser.add_argument("--upload-limit", type=int, default=0, help="bytes per second; 0 is no limit")
    parser.add_argument("--set", dest="changes", type=setting, action="append", default=[])
    arguments = parser.parse_args()
    arguments.settings = dict(arguments.changes)
    arguments.disk = arguments.disk or BEST_DISK[arguments.side]
    SIDES[arguments.side](arguments)


if __name__ == "__main__":
    main()
