"""This project's parser, under the guide's names."""

from torrent_client import torrent_parser
from torrent_client.protocol.bencode import bencode_decode

__all__ = ["TorrentFile", "bencode_decode"]


class TorrentFile:
    """`torrent_client.torrent_parser.TorrentFile`, with the guide's attributes."""

    def __init__(self, path: str) -> None:
        """Read a file."""
        self.torrent = torrent_parser.TorrentFile.from_file(path)
        self.announce = self.torrent.announce
        self.name = self.torrent.name
        self.piece_length = self.torrent.piece_length
        self.pieces = self.torrent.piece_hashes
        self.length = self.torrent.total_length
        self.files = self.torrent.files
        self.info_hash = self.torrent.info_hash
