"""The `dht` command: look up an info hash in the DHT, and show every step of the way.

    hop  bits in common  node                     answered  told
      0               3  192.0.2.7:6881               34 ms  8 nodes
      1              11  198.51.100.23:51413          81 ms  8 nodes, 2 peers

The more bits a node's id has in common with the hash, the nearer it is. The command's own node is a visitor: it asks
and does not answer (BEP 43), for others should not remember who is gone in a moment.

Spec: BEP 5 (get_peers, announce_peer), 43.
Thread: main; what the DHT's thread finds comes through a queue.
Lock: none.
"""

import json
import re
import sys
from argparse import Namespace
from base64 import b32decode
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from torrent_client.cli.exit_codes import ExitCode
from torrent_client.cli.get import Interruption, default_state_directory, read_torrent
from torrent_client.config import Config
from torrent_client.dht.node import DhtNode
from torrent_client.dht.node_id import common_bits
from torrent_client.dht.search import Hop, SearchResult
from torrent_client.errors import MetainfoError, TorrentError
from torrent_client.text import counted, printable
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress

Event: TypeAlias = Hop | SearchResult | Sequence[PeerAddress]

SIGNAL_TICK = 0.1
"""Seconds after which Ctrl-C is noticed at the latest."""


def look_up(options: Namespace) -> int:
    """Look up a hash; return the exit code.

    Raises:
        TorrentError: it is no hash, or nobody in the DHT answered.
    """
    info_hash, nodes = read_target(options.target)
    config = Config(dht=True, dht_read_only=True, dht_bootstrap=tuple(options.dht_bootstrap) or None)
    node = DhtNode(config, 0, options.state_dir or default_state_directory())
    events: SimpleQueue[Event] = SimpleQueue()
    interruption = Interruption()
    with interruption.handled():
        node.start()
        try:
            for host, port in nodes:
                node.add_node(host, port)
            _tell(options, f"looking up {info_hash.hex()}\nhop  bits in common  node")
            node.find_peers(
                info_hash, events.put, announce_port=options.announce, on_hop=events.put, on_done=events.put
            )
            result = _show(events, info_hash, options, interruption)
            reason = node.stats().best.reason or "every node failed"
        finally:
            node.stop()
    if result is None:
        return 128 + (interruption.signal or 0)
    if not result.answered:
        raise TorrentError(f"nobody in the DHT answered: {reason}")
    return ExitCode.OK


def read_target(text: str) -> tuple[bytes, Sequence[tuple[str, int]]]:
    """Return an info hash and nodes to ask: of a hash in hexadecimal or base32, a .torrent file, or a magnet link.

    Raises:
        MetainfoError: it is none of them, or a private torrent.
    """
    if re.fullmatch(r"[0-9a-fA-F]{40}", text):
        return bytes.fromhex(text), ()
    if re.fullmatch(r"[a-zA-Z2-7]{32}", text):
        return b32decode(text.upper()), ()
    torrent = read_torrent(text)
    if not isinstance(torrent, TorrentFile):
        return torrent.info_hash, ()
    if torrent.is_private:
        raise MetainfoError("the torrent is private: its peers come from its trackers alone (BEP 27)")
    return torrent.info_hash, torrent.nodes


def _show(
    events: SimpleQueue[Event], info_hash: bytes, options: Namespace, interruption: Interruption
) -> SearchResult | None:
    """Show what happens as it does; return how it ended, None if the user has had enough."""
    while interruption.signal is None:
        try:
            event = events.get(timeout=SIGNAL_TICK)
        except Empty:
            continue
        if options.json:
            print(json.dumps(_as_values(event, info_hash)), flush=True)
        if isinstance(event, Hop):
            _tell(options, _hop_line(event, info_hash))
        elif isinstance(event, SearchResult):
            _tell(options, _summary(event, options.announce))
            return event
        elif not options.json:
            print("\n".join(map(str, event)), flush=True)
    return None


def _hop_line(hop: Hop, info_hash: bytes) -> str:
    """Return one step in one line."""
    bits = str(common_bits(hop.node_id, info_hash)) if hop.node_id else "?"
    answered = f"{1000 * hop.round_trip:.0f} ms" if hop.round_trip is not None else "-"
    told = printable(hop.error, 100) or counted(hop.nodes, "node") + (
        f", {counted(hop.values, 'peer')}" if hop.values else ""
    )
    return f"{hop.depth:>3}  {bits:>14}  {hop.endpoint!s:<28}  {answered:>8}  {told}"


def _summary(result: SearchResult, announced_port: int | None) -> str:
    """Return how it ended, in a sentence."""
    text = f"{result.answered} of {result.asked} nodes answered, {counted(result.peers, 'different peer')} found"
    return f"{text}, announced to {counted(result.announced, 'node')}" if announced_port else text


def _as_values(event: Event, info_hash: bytes) -> dict[str, Any]:
    """Return an event as values that JSON knows."""
    if isinstance(event, Hop):
        bits = common_bits(event.node_id, info_hash) if event.node_id else None
        value = event._asdict() | {"endpoint": str(event.endpoint), "node_id": event.node_id.hex(), "common_bits": bits}
        return {"type": "hop", **value}
    if isinstance(event, SearchResult):
        return {"type": "result", "info_hash": info_hash.hex(), **event._asdict()}
    return {"type": "peers", "peers": [str(peer) for peer in event]}


def _tell(options: Namespace, text: str) -> None:
    """Print for people, unless they want none or a program reads."""
    if not options.quiet and not options.json:
        print(text, file=sys.stderr)
