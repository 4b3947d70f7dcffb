"""Finds out which pieces are on disk: from the state file where it can be believed, else by hashing.

    state says complete, file unchanged   -> taken as it stands
    file changed, or no state             -> hashed
    no file, or a hole in a sparse file   -> missing, without reading a byte

What the part file has of a file (see `part_file`) is judged by the part file's own stamp.

Spec: the guide's Task 14 ("verify existing pieces on disk").
Thread: one at a time; hashes on a pool of threads (the GIL is released in reading and in SHA-1).
Lock: none.
"""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from hashlib import sha1

from torrent_client.bitfield import Bitfield
from torrent_client.errors import StorageError
from torrent_client.piece_manager import PieceManager
from torrent_client.resume import ResumeData
from torrent_client.storage import FileStamp, Storage
from torrent_client.torrent_parser import FileEntry

CHECKS_AT_ONCE = 4
"""Pieces being read and hashed at the same time; each holds one piece in memory."""


def judge_files(state: ResumeData | None, storage: Storage, piece_count: int) -> tuple[Bitfield, Bitfield]:
    """Say which pieces are there for sure, and which must be hashed to find out.

    Args:
        state: what an earlier run saved, if it did.
        storage: the files.
        piece_count: of the torrent.

    Returns:
        Pieces that are believed to be complete, and pieces that may be: those of files that are there
        and not as the state describes them.
    """

    def is_unchanged(file: FileEntry, stamp: FileStamp | None) -> bool:
        if stamp is None or state is None or not state.trusted or stamp.size < file.length:
            return False
        return stamp == state.stamps.get(str(file.path))

    changed = doubtful = 0
    apart = storage.pieces_apart()
    if apart and not is_unchanged(storage.part_file, storage.stamp(storage.part_file)):
        for pieces in apart.values():
            changed |= pieces
            doubtful |= pieces
    for file in storage.files:
        if file.is_padding or not file.length:
            continue
        stamp = storage.stamp(file)
        if not is_unchanged(file, stamp):
            indices = storage.pieces_of(file)
            pieces = ((1 << indices.stop) - (1 << indices.start)) & ~apart.get(file, 0)
            changed |= pieces
            if stamp and stamp.size:
                doubtful |= pieces
    believed = state.completed.bits & ~changed if state else 0
    return Bitfield(piece_count, believed), Bitfield(piece_count, doubtful)


def check_pieces(
    manager: PieceManager,
    storage: Storage,
    indices: Iterable[int],
    executor: Executor,
    on_checked: Callable[[int, bool], None],
    stopped: Callable[[], bool],
) -> None:
    """Hash pieces on disk and mark the good ones COMPLETE.

    Args:
        manager: knows the hashes, and is told of each good piece.
        storage: where the pieces lie.
        indices: pieces to check.
        executor: threads to hash on.
        on_checked: called with each index and whether it was good, in order.
        stopped: asked now and then whether to give up.
    """
    zeros = _HoleHashes(manager)
    waiting: deque[tuple[int, Future[bool]]] = deque()

    def finish_oldest() -> None:
        index, future = waiting.popleft()
        good = future.result()
        if good:
            manager.mark_complete(index)
        on_checked(index, good)

    for index in indices:
        if stopped():
            break
        waiting.append((index, executor.submit(_is_good, manager, storage, zeros, index)))
        if len(waiting) >= CHECKS_AT_ONCE:
            finish_oldest()
    while waiting:
        finish_oldest()


def _is_good(manager: PieceManager, storage: Storage, zeros: "_HoleHashes", index: int) -> bool:
    """Tell whether one piece on disk is good; a file that is missing or short makes it bad."""
    size = manager.piece_size(index)
    try:
        if storage.is_hole(index, size):
            return zeros.hash_of(size) == manager.hashes[index]
        return manager.verify_piece(index, storage.read_block(index, 0, size))
    except StorageError:
        return False


class _HoleHashes:
    """The hashes of pieces that are all zeros: a hole may well be good data."""

    def __init__(self, manager: PieceManager) -> None:
        sizes = {manager.piece_size(0), manager.piece_size(manager.piece_count - 1)} if manager.piece_count else set()
        self._hashes = {size: sha1(bytes(size)).digest() for size in sizes}

    def hash_of(self, size: int) -> bytes:
        """Return the SHA-1 of a piece of zeros."""
        return self._hashes[size]
