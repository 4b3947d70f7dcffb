"""What the DHT node knows from earlier runs: its ids, and nodes to begin with.

    {"port": 6881, "ipv4": {"id": "5fbf...", "nodes": [["a5d4...", "192.0.2.7", 6881], ...]}, "ipv6": {...}}

The id is kept only for the port that it was used on: two clients that run side by side have different ports,
and must not be one node. The file is written beside and renamed, so that there is always a whole one.

Spec: BEP 5 (the routing table is saved).
Thread: the DHT's; the one that makes the node.
Lock: none; one writer.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, NamedTuple

from torrent_client.protocol.krpc import ID_LENGTH, Endpoint, NodeInfo

logger = logging.getLogger(__name__)

FILE_NAME: Final = "dht.json"
MAX_FILE_SIZE: Final = 256 * 1024
"""Bytes of the file that are read at most; 400 nodes take 30 KB."""

MAX_NODES_SAVED: Final = 200
"""Nodes saved of each family. libtorrent saves 200."""


class SavedNodes(NamedTuple):
    """One family's share: the id, if it may be used again, and nodes."""

    node_id: bytes | None = None
    nodes: tuple[NodeInfo, ...] = ()


def load(directory: Path, port: int) -> dict[int, SavedNodes]:
    """Return what was saved, by family 4 and 6; what cannot be used is left out.

    Args:
        directory: where state files lie.
        port: UDP port that the node uses now.
    """
    path = directory / FILE_NAME
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(MAX_FILE_SIZE))
        return {
            family: _parse(value.get(f"ipv{family}", {}), family, keeps_id=value["port"] == port) for family in (4, 6)
        }
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        logger.warning("the saved DHT nodes in %s are not usable (%r)", path, error)
    return {4: SavedNodes(), 6: SavedNodes()}


def save(directory: Path, port: int, families: Mapping[int, tuple[bytes, Iterable[NodeInfo]]]) -> None:
    """Save ids and nodes, by family; a failure costs the next start a second and is logged only."""
    value: dict[str, Any] = {"port": port}
    for family, (node_id, nodes) in families.items():
        shown = [[node.node_id.hex(), *node.endpoint] for node in list(nodes)[:MAX_NODES_SAVED]]
        value[f"ipv{family}"] = {"id": node_id.hex(), "nodes": shown}
    temporary = (directory / FILE_NAME).with_suffix(f".{port}.tmp")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(value))
        temporary.replace(directory / FILE_NAME)
    except OSError as error:
        logger.warning("cannot save the DHT nodes to %s: %s", directory, error.strerror)
        with suppress(OSError):
            temporary.unlink()


def _parse(value: dict[str, Any], family: int, *, keeps_id: bool) -> SavedNodes:
    """Read one family's share; any of the errors that `load` expects when it is none."""
    if not value:
        return SavedNodes()
    node_id = _id(value["id"])
    nodes = []
    for text, host, port in value["nodes"][:MAX_NODES_SAVED]:
        if ip_address(host).version == family and 0 < int(port) < 65_536:
            nodes.append(NodeInfo(_id(text), Endpoint(str(ip_address(host)), int(port))))
    return SavedNodes(node_id if keeps_id else None, tuple(nodes))


def _id(text: str) -> bytes:
    node_id = bytes.fromhex(text)
    if len(node_id) != ID_LENGTH:
        raise ValueError(f"an id of {len(node_id)} bytes")
    return node_id
