"""Tasks 11 to 15: everything together."""

import json
import threading
import time
from pathlib import Path

from peer_connection import PeerConnection
from piece_manager import PieceManager
from torrent_parser import TorrentFile
from tracker_client import TrackerClient, generate_peer_id


class DownloadManager:
    """Downloads one torrent."""

    def __init__(self, torrent: TorrentFile, output_dir: str) -> None:
        """Do nothing yet."""
        self.torrent = torrent
        self.root = Path(output_dir)
        self.pieces = PieceManager(torrent.pieces)
        self.state_file = self.root / f"{torrent.name}.state.json"
        self.lock = threading.Lock()
        self.connected = 0
        self.received = 0
        if torrent.files:
            base = self.root / torrent.name
            self.files = [(base.joinpath(*entry["path"]), entry["length"]) for entry in torrent.files]
        else:
            self.files = [(self.root / torrent.name, torrent.length)]

    def _size(self, index: int) -> int:
        return min(self.torrent.piece_length, self.torrent.length - index * self.torrent.piece_length)

    # --- disk ---

    def _places(self, index: int) -> list[tuple[Path, int, int, int]]:
        """Return (file, offset in it, offset in the piece, bytes) of each part of a piece."""
        places = []
        start, end = index * self.torrent.piece_length, index * self.torrent.piece_length + self._size(index)
        file_start = 0
        for path, length in self.files:
            low, high = max(start, file_start), min(end, file_start + length)
            if low < high or length == 0:
                places.append((path, low - file_start, low - start, max(0, high - low)))
            file_start += length
        return places

    def write_piece(self, index: int, data: bytes) -> None:
        """Write a piece to where it belongs."""
        with self.lock:
            for path, at, offset, length in self._places(index):
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():
                    path.touch()
                if not length:
                    continue
                with path.open("r+b") as file:
                    file.seek(at)
                    file.write(data[offset : offset + length])

    def _read_piece(self, index: int) -> bytes:
        data = bytearray(self._size(index))
        for path, at, offset, length in self._places(index):
            if length:
                with path.open("rb") as file:
                    file.seek(at)
                    data[offset : offset + length] = file.read(length)
        return bytes(data)

    # --- resuming ---

    def _save(self) -> None:
        with self.lock:
            temporary = self.state_file.with_suffix(".new")
            temporary.write_text(json.dumps({"completed": self.pieces.complete()}))
            temporary.replace(self.state_file)

    def _resume(self) -> None:
        if not self.state_file.exists():
            return
        for index in json.loads(self.state_file.read_text())["completed"]:
            try:
                if self.pieces.verify_piece(index, self._read_piece(index)):
                    self.pieces.mark_complete(index)
            except OSError:
                pass

    # --- peers ---

    def _done(self) -> bool:
        return len(self.pieces.complete()) == len(self.torrent.pieces)

    def _peer(self, address: tuple[str, int]) -> None:
        """Download from one peer until all is done, and dial it again when it is lost."""
        for attempt in range(4):
            try:
                self._talk(address)
            except Exception as error:
                print(f"{address}: {error}")
            if self._done():
                return
            time.sleep(0.5 * (attempt + 1))

    def _talk(self, address: tuple[str, int]) -> None:
        connection = PeerConnection(*address, self.torrent.info_hash, generate_peer_id())
        connection.connect()
        self.connected += 1
        index = None
        try:
            connection.handshake()
            connection.send_interested()
            while connection.choked:
                connection.receive_message()
            while not self._done():
                self.pieces.add_peer(address, connection.pieces)
                index = self.pieces.get_next_piece(address)
                if index is None:
                    time.sleep(0.05)
                    continue
                data = connection.download_piece(index, self._size(index))
                if not self.pieces.verify_piece(index, data):
                    raise ValueError(f"piece {index} is bad")
                self.write_piece(index, data)
                self.pieces.mark_complete(index)
                self.received += len(data)
                index = None
                self._save()
        finally:
            if index is not None:
                self.pieces.mark_missing(index)
            self.pieces.remove_peer(address)
            self.connected -= 1
            connection.close()

    def _find_peers(self) -> list[tuple[str, int]]:
        for attempt in range(4):
            try:
                return TrackerClient(self.torrent, generate_peer_id()).get_peers()
            except Exception as error:
                print(f"tracker: {error}")
                time.sleep(2**attempt)
        raise RuntimeError("the tracker does not answer")

    def download(self) -> None:
        """Get everything."""
        self._resume()
        for address in self._find_peers():
            threading.Thread(target=self._peer, args=(address,), daemon=True).start()
        began = time.monotonic()
        while not self._done():
            time.sleep(0.2)
            have, count = len(self.pieces.complete()), len(self.torrent.pieces)
            speed = self.received / (time.monotonic() - began)
            left = (count - have) * self.torrent.piece_length / speed if speed else 0
            line = f"{100 * have / count:.1f}% pieces {have}/{count} {speed / 1e6:.2f} MB/s"
            print(f"{line} peers {self.connected} ETA {left:.0f} s", flush=True)
