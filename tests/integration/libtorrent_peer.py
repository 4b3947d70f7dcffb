"""libtorrent as a program: seeds one torrent until it is told to stop, or leeches it until it has everything.

Run by `tests.integration.real_peers` in a process of its own, which can be killed at once: a session
takes seconds to end by itself. Prints the port that it listens on, in a line of its own.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import libtorrent as lt

# How long to wait for an alert before looking at the stop flag again.
_ALERT_WAIT_MS = 200


def main() -> int:
    """Run the peer that the command line describes, and return 0."""
    options = _parse_arguments()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    settings = _settings(options.listen) | _encryption(options.encryption) | _dht(options.dht)
    session = lt.session(settings | {"enable_lsd": options.lsd})
    handle = _add_torrent(session, options)
    for peer in options.peer:
        host, _, port = peer.rpartition(":")
        handle.connect_peer((host.strip("[]"), int(port)))
    _run(session, lambda: stop.is_set() or (not options.seed and handle.status().is_seeding))
    return 0  # where the session ends, which waits for what is not written to disk yet


def _settings(listen: str) -> "lt.settings_pack":
    """Return the settings of a peer that meets only those whom a test introduces to it."""
    return {
        "listen_interfaces": listen,
        "enable_dht": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_utp": False,  # slow on loopback
        "enable_outgoing_utp": False,
        "allow_multiple_connections_per_ip": True,  # on loopback many peers have one address
        "announce_to_all_trackers": True,
        "stop_tracker_timeout": 1,  # seconds
        "min_reconnect_time": 1,  # seconds
        "connection_speed": 100,  # dials per second
        "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
    }


def _encryption(choice: str) -> "lt.settings_pack":
    """Return the settings of a peer that encrypts every handshake, and what comes after it or not."""
    if not choice:
        return {}
    level = {"rc4": lt.enc_level.pe_rc4, "plaintext": lt.enc_level.pe_plaintext}[choice]
    return {
        "out_enc_policy": lt.enc_policy.pe_forced,
        "in_enc_policy": lt.enc_policy.pe_forced,
        "allowed_enc_level": level,
    }


def _dht(entrance: str) -> "lt.settings_pack":
    """Return the settings of a node in a DHT in which all have the same address."""
    if not entrance:
        return {}
    return {
        "enable_dht": True,
        "dht_bootstrap_nodes": entrance,
        "dht_restrict_routing_ips": False,
        "dht_restrict_search_ips": False,
        "dht_enforce_node_id": False,
        "dht_prefer_verified_node_ids": False,
        "dht_ignore_dark_internet": False,
        "dht_announce_interval": 5,  # seconds
    }


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("torrent", help="path of a .torrent file, or a magnet link")
    parser.add_argument("directory", type=Path, help="where the content is, or goes")
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT; port 0 is any free one")
    parser.add_argument("--peer", action="append", default=[], help="HOST:PORT of a peer to connect to")
    parser.add_argument("--seed", action="store_true", help="the content is complete: no check, no download")
    parser.add_argument("--lsd", action="store_true", help="find peers on the local network")
    parser.add_argument("--dht", default="", metavar="HOST:PORT", help="find peers in the DHT of this node")
    parser.add_argument("--pex", action="store_true", help="exchange peers")
    parser.add_argument("--upload-limit", type=int, default=0, help="bytes per second; 0 is no limit")
    parser.add_argument("--encryption", choices=("", "rc4", "plaintext"), default="", help="all that it speaks")
    return parser.parse_args()


def _add_torrent(session: lt.session, options: argparse.Namespace) -> lt.torrent_handle:
    is_link = options.torrent.startswith("magnet:")
    parameters = lt.parse_magnet_uri(options.torrent) if is_link else lt.load_torrent_file(options.torrent)
    parameters.save_path = str(options.directory)
    parameters.flags &= ~(lt.torrent_flags.paused | lt.torrent_flags.auto_managed)
    if options.dht:
        parameters.flags &= ~lt.torrent_flags.disable_dht
    else:
        parameters.flags |= lt.torrent_flags.disable_dht
    if not options.lsd:
        parameters.flags |= lt.torrent_flags.disable_lsd
    if not options.pex:
        parameters.flags |= lt.torrent_flags.disable_pex
    if options.seed:
        parameters.flags |= lt.torrent_flags.seed_mode
    handle = session.add_torrent(parameters)
    if options.upload_limit:
        # On the torrent, not the session: the session's limit leaves out peers of the local network.
        handle.set_upload_limit(options.upload_limit)
    return handle


def _run(session: lt.session, is_over: Callable[[], bool]) -> None:
    """Log every alert until it is over, and print the port once it is known."""
    port_is_known = False
    while not is_over():
        session.wait_for_alert(_ALERT_WAIT_MS)
        for alert in session.pop_alerts():
            sys.stderr.write(f"{alert}\n")
        if not port_is_known and (port := session.listen_port()):
            port_is_known = True
            sys.stdout.write(f"{port}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
