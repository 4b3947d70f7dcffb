"""The coursework's commands: each shows one step of a download, and prints that step's result and nothing else.

    decode VALUE                          bencode to JSON
    info FILE                             (`cli.info`)
    peers FILE                            one ip:port a line
    handshake FILE IP:PORT                the peer's id
    download_piece -o OUT FILE INDEX      one piece into OUT
    download -o OUT FILE                  all of it into OUT

    magnet_parse LINK                     tracker and info hash of a magnet link
    magnet_handshake LINK                 the peer's id, and the id under which it takes requests for metadata
    magnet_info LINK                      the lines of `info`
    magnet_download_piece -o OUT LINK INDEX
    magnet_download -o OUT LINK

They are thin: a few calls of the spine's modules each, in the order in which a student writes them. Handshakes have
the plain profile, all reserved bits zero but, with a magnet link, the extension bit: a lesson's peer compares them byte
for byte.

Spec: BEP 3, and 9 and 10 with magnet links; the guide's Tasks 2 to 12.
Thread: main, and those of `plain_client`.
Lock: none.
"""

import json
import os
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from torrent_client.cli.info import print_lines
from torrent_client.config import Config
from torrent_client.errors import PeerError, StorageError, TorrentError, TrackerError
from torrent_client.magnet import MagnetLink, metainfo
from torrent_client.peer_connection import PeerConnection
from torrent_client.plain_client import PlainClient, ReadyPeer, find_peers
from torrent_client.plain_metadata import MetadataPeer
from torrent_client.protocol.bencode import BencodeValue, bencode_decode
from torrent_client.storage import Storage
from torrent_client.text import printable
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress, generate_peer_id

Answer = TypeVar("Answer")

PATIENCE: Final = Config(connect_timeout=3.0, handshake_timeout=5.0, idle_timeout=30.0)
"""Peers of a magnet link are asked one after the other, so that none may take long."""

JsonValue: TypeAlias = int | str | list["JsonValue"] | dict[str, "JsonValue"]


def run_milestone(options: Namespace) -> int:
    """Run the command that the command line names; return the exit code."""
    _COMMANDS[options.command](options)
    return 0


def _decode(options: Namespace) -> None:
    value = bencode_decode(os.fsencode(options.value))
    print(json.dumps(_as_json(value), separators=(",", ":")))


def _text(data: bytes) -> str:
    """Return a byte string as text; a byte that is not UTF-8 becomes a backslash, an x and two digits."""
    return data.decode("utf-8", "backslashreplace")


def _as_json(value: BencodeValue) -> JsonValue:
    """Return the value with text for its byte strings, which JSON does not have."""
    match value:
        case bytes():
            return _text(value)
        case list():
            return [_as_json(item) for item in value]
        case dict():
            return {_text(key): _as_json(item) for key, item in value.items()}
        case _:
            return value


def _peers(options: Namespace) -> None:
    torrent = TorrentFile.from_file(options.torrent)
    for address in _peers_of(torrent, generate_peer_id()):
        print(address)


def _peers_of(torrent: TorrentFile, peer_id: bytes) -> list[PeerAddress]:
    return find_peers(torrent.trackers, torrent.info_hash, peer_id, torrent.total_length)


def _handshake(options: Namespace) -> None:
    torrent = TorrentFile.from_file(options.torrent)
    with PeerConnection(options.peer, torrent.info_hash, generate_peer_id()) as connection:
        connection.connect()
        print(f"Peer ID: {connection.handshake().peer_id.hex()}")


def _download_piece(options: Namespace) -> None:
    torrent = TorrentFile.from_file(options.torrent)
    peer_id = generate_peer_id()
    check_index(torrent, options.index)
    fetch_piece(torrent, peer_id, options.index, options.output, _peers_of(torrent, peer_id))


def _download(options: Namespace) -> None:
    torrent = TorrentFile.from_file(options.torrent)
    peer_id = generate_peer_id()
    fetch_all(torrent, peer_id, options.output, _peers_of(torrent, peer_id))


def _magnet_parse(options: Namespace) -> None:
    link = MagnetLink.parse(options.link)
    print(f"Tracker URL: {printable(next(iter(link.trackers), ''))}")
    print(f"Info Hash: {link.info_hash.hex()}")


def _magnet_handshake(options: Namespace) -> None:
    link, peer_id = MagnetLink.parse(options.link), generate_peer_id()

    def show(peer: MetadataPeer, number: int) -> None:
        assert peer.connection.remote is not None
        print(f"Peer ID: {peer.connection.remote.peer_id.hex()}")
        print(f"Peer Metadata Extension ID: {number}")

    _first_that_gives(link, peer_id, _addresses_of(link, peer_id), show)


def _magnet_info(options: Namespace) -> None:
    link, peer_id = MagnetLink.parse(options.link), generate_peer_id()
    _with_metadata(link, peer_id, lambda torrent, _addresses, _ready: print_lines(torrent))


def _magnet_download_piece(options: Namespace) -> None:
    link, peer_id = MagnetLink.parse(options.link), generate_peer_id()

    def download(torrent: TorrentFile, addresses: Sequence[PeerAddress], ready: ReadyPeer) -> None:
        check_index(torrent, options.index)
        fetch_piece(torrent, peer_id, options.index, options.output, addresses, ready)

    _with_metadata(link, peer_id, download)


def _magnet_download(options: Namespace) -> None:
    link, peer_id = MagnetLink.parse(options.link), generate_peer_id()

    def download(torrent: TorrentFile, addresses: Sequence[PeerAddress], ready: ReadyPeer) -> None:
        fetch_all(torrent, peer_id, options.output, addresses, ready)

    _with_metadata(link, peer_id, download)


def _addresses_of(link: MagnetLink, peer_id: bytes) -> list[PeerAddress]:
    """Return the link's own peers and those of its trackers, which may all fail where there are such peers."""
    try:
        tiers = [[url] for url in link.trackers]
        return [*link.peers, *find_peers(tiers, link.info_hash, peer_id, 1)]  # 1: nobody knows yet how much we lack
    except TrackerError:
        if not link.peers:
            raise
        return list(link.peers)


def _with_metadata(
    link: MagnetLink, peer_id: bytes, use: Callable[[TorrentFile, Sequence[PeerAddress], ReadyPeer], None]
) -> None:
    """Get the metadata from the first peer that gives it, and use it while that peer is still connected."""
    addresses = _addresses_of(link, peer_id)

    def fetch(peer: MetadataPeer, _number: int) -> TorrentFile:
        return TorrentFile.from_bytes(metainfo(peer.fetch(), [[url] for url in link.trackers], link.web_seeds))

    peer, torrent = _first_that_gives(link, peer_id, addresses, fetch, keep=True)
    with peer.connection:
        use(torrent, addresses, peer.ready())


def _first_that_gives(
    link: MagnetLink,
    peer_id: bytes,
    addresses: Sequence[PeerAddress],
    ask: Callable[[MetadataPeer, int], Answer],
    *,
    keep: bool = False,
) -> tuple[MetadataPeer, Answer]:
    """Ask one peer after the other, with the extension handshake, until one answers.

    Args:
        link: names the torrent.
        peer_id: 20 bytes, ours.
        addresses: the peers.
        ask: gets the peer and the id that it takes requests under; raises PeerError if that one is no good.
        keep: leave the connection open.

    Raises:
        TorrentError: none did; says why of each.
    """
    failures = []
    for address in dict.fromkeys(addresses):
        peer = MetadataPeer(address, link.info_hash, peer_id, PATIENCE)
        with ExitStack() as stack:
            stack.enter_context(peer.connection)
            try:
                answer = ask(peer, peer.meet())
            except PeerError as error:
                failures.append(f"{address}: {error}")
                continue
            if keep:
                stack.pop_all()
            return peer, answer
    raise TorrentError(f"no peer gave the metadata; {'; '.join(failures) or 'there are no peers'}")


def check_index(torrent: TorrentFile, index: int) -> None:
    """Refuse a piece that the torrent does not have.

    Raises:
        TorrentError: there is no such piece; says how many there are.
    """
    if not 0 <= index < torrent.piece_count:
        raise TorrentError(f"there is no piece {index}: the torrent has {torrent.piece_count}, from 0 on")


def fetch_piece(
    torrent: TorrentFile,
    peer_id: bytes,
    index: int,
    output: Path,
    addresses: Sequence[PeerAddress],
    ready: ReadyPeer | None = None,
) -> None:
    """Download one piece into a file; `ready` is a peer that is connected already.

    Raises:
        TorrentError: no peer gave it.
        StorageError: it cannot be written.
    """
    with _finished_at(output) as folder:

        def store(_index: int, data: memoryview) -> None:
            try:
                (folder / output.name).write_bytes(data)
            except OSError as error:
                raise StorageError(f"cannot write {output}: {error.strerror or error}") from error

        PlainClient(torrent, peer_id, store, [index], extensions=ready is not None).fetch(addresses, ready)


def fetch_all(
    torrent: TorrentFile,
    peer_id: bytes,
    output: Path,
    addresses: Sequence[PeerAddress],
    ready: ReadyPeer | None = None,
) -> None:
    """Download a torrent into a file, or, if it has several files, into a directory of that name.

    `ready` is a peer that is connected already.

    Raises:
        TorrentError: the peers did not give all of it.
        StorageError: it cannot be written.
    """
    with (
        _finished_at(output) as folder,
        closing(Storage(folder, torrent.stored_as(output.name).files, torrent.piece_length)) as storage,
    ):
        storage.check_free_space(torrent.content_length)
        storage.preallocate()
        PlainClient(torrent, peer_id, storage.write_piece, extensions=ready is not None).fetch(addresses, ready)


@contextmanager
def _finished_at(output: Path) -> Iterator[Path]:
    """Give a new folder beside `output`; what is called the same in it takes its place when the block ends well.

    So there is never half a download under the name that the user gave.

    Raises:
        StorageError: that cannot be done there.
    """
    if output.is_dir() and any(output.iterdir()):
        raise StorageError(f"{output} is a directory with something in it; -o wants a name for the file")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
            yield Path(folder)
            if output.is_dir():
                output.rmdir()
            os.replace(Path(folder, output.name), output)
    except OSError as error:
        raise StorageError(f"cannot write {output}: {error.strerror or error}") from error


_COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "decode": _decode,
    "peers": _peers,
    "handshake": _handshake,
    "download_piece": _download_piece,
    "download": _download,
    "magnet_parse": _magnet_parse,
    "magnet_handshake": _magnet_handshake,
    "magnet_info": _magnet_info,
    "magnet_download_piece": _magnet_download_piece,
    "magnet_download": _magnet_download,
}
