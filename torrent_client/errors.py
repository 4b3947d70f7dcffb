"""The exceptions of the client, as a tree.

    TorrentError
    ├── BencodeError          bytes that are no bencode; carries the offset
    ├── MetainfoError         a .torrent that is bencode but no torrent we can use; names the field
    ├── TrackerError          a tracker that refused, failed, or answered nonsense
    │   └── TrackerSilent         one that has not answered over UDP, where anything may get lost
    ├── WebSeedError          a web server that did not give what a torrent says it has
    ├── PortMappingError      no router that maps ports, or one that refuses
    ├── KrpcError             a datagram that is no message of the DHT
    ├── SelectionError        files were chosen that the torrent does not have
    ├── DownloadStalled       nothing came for as long as the user wanted to wait
    ├── DataIncomplete        what is to be seeded is not all there
    ├── TorrentConflict       two torrents that cannot run in one session
    ├── StorageError          the disk: full, read-only, missing, failing
    └── PeerError             a peer; ends that connection and nothing else
        ├── HandshakeError        it is not a peer for this torrent
        ├── ProtocolViolation     it sent what no correct client sends
        └── PeerDisconnected      it went away, or was silent for too long

A parser raises exactly one of these for any bytes. Messages are sentences for people: `main` prints
them as they are.

Thread: none.
Lock: none.
"""


class TorrentError(Exception):
    """Anything that this client raises on purpose."""


class BencodeError(TorrentError):
    """Bytes that are not bencode, or more of it than we are willing to decode.

    Args:
        message: what was wrong.
        offset: byte offset into the input at which it was seen.
    """

    def __init__(self, message: str, offset: int = 0) -> None:
        """Keep the offset beside the message."""
        super().__init__(f"{message} at byte {offset}")
        self.offset = offset


class MetainfoError(TorrentError):
    """A torrent that cannot be used; the message names the field and says why."""


class TrackerError(TorrentError):
    """An announce that failed.

    Args:
        message: what happened, for people.
        retry_in: seconds after which the tracker itself said to try again, if it did (BEP 31).
    """

    def __init__(self, message: str, retry_in: float | None = None) -> None:
        """Keep the tracker's own wish beside the message."""
        super().__init__(message)
        self.retry_in = retry_in


class TrackerSilent(TrackerError):
    """No answer to a datagram; `retry_in` is when its protocol says to send it again, and no other rule counts."""


class WebSeedError(TorrentError):
    """A web seed that failed.

    Args:
        message: what happened, for people.
        retry_in: seconds after which the server itself said to try again, if it did.
        is_lasting: to ask again soon would bring the same.
        missing_file: it does not have this file of the torrent, and may well have others.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_in: float | None = None,
        is_lasting: bool = False,
        missing_file: int | None = None,
    ) -> None:
        """Keep what to do about it beside the message."""
        super().__init__(message)
        self.retry_in = retry_in
        self.is_lasting = is_lasting
        self.missing_file = missing_file


class PortMappingError(TorrentError):
    """No router was found that maps ports, or it refused; peers cannot call us, and all else works."""


class KrpcError(TorrentError):
    """A datagram that is no message of the DHT.

    Args:
        message: what was wrong.
        query: the transaction id, if it was a query whose sender can be told.
    """

    def __init__(self, message: str, query: bytes | None = None) -> None:
        """Keep the transaction beside the message."""
        super().__init__(message)
        self.query = query


class SelectionError(TorrentError):
    """The user chose files that the torrent does not have."""


class DownloadStalled(TorrentError):
    """Nothing came for as long as the user wanted to wait (`--stop-timeout`)."""


class DataIncomplete(TorrentError):
    """Data that is only to be seeded has missing or bad pieces."""


class TorrentConflict(TorrentError):
    """A torrent that runs already, or that wants to write a file of another one."""


class StorageError(TorrentError):
    """Reading or writing the downloaded files failed."""


class FileVanished(StorageError):
    """A file that was there is not there any more."""


class TooManyFiles(StorageError):
    """A file could not be opened because too many are open at this moment; nothing is the matter with it."""


class PeerError(TorrentError):
    """Something about one peer; its connection is closed and the download goes on."""


class HandshakeError(PeerError):
    """The other side is no peer for this torrent."""


class ProtocolViolation(PeerError):
    """The peer sent what no correct client sends: it is closed and dialled again late, if ever."""


class PeerDisconnected(PeerError):
    """The connection ended, was refused, or was silent for too long."""
