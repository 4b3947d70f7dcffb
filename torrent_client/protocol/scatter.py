"""Receives blocks straight into their pieces: what a peer sends next is known, for it was asked for.

    asked for       block 6           block 7           block 8
    the stream    | 13 | 16 KiB     | 13 | 16 KiB     | 13 | 16 KiB ...
    one read      | head | piece 3  | head | piece 3  | head | piece 4 ...      no copy of ours

A *place* is where a block and the 13 bytes before it belong. The system scatters what it reads over the places of the
blocks that were asked for first; then the heads are compared with what was expected, those of a run of neighbouring
blocks at once. Peers answer in order, so that they nearly always agree. Where they do not (a `have` in between, a block
left out), what came from there on is copied together and read by a `MessageReader`, which reads all else, too.

The memory of a place must be nobody else's until the next read: whatever a peer sends is left there.
`request_book` sees to that; here no two places of one block are used at once.

Spec: BEP 3 (request, piece).
Thread: pure; belongs to its connection's reader thread.
Lock: none.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from torrent_client.config import BLOCK_SIZE
from torrent_client.protocol.messages import HEADER_LENGTH, Message, MessageReader, Piece

MOST_BLOCKS: Final = 128
"""Blocks in one read at most, 2 MiB: two buffers for each, of the 1,024 that Linux takes (IOV_MAX)."""

LEAST_BLOCKS: Final = 4
"""Blocks in the first reads; to prepare many places for little is of no use."""

_STEP: Final = HEADER_LENGTH + BLOCK_SIZE


class BlockRun(NamedTuple):
    """Neighbouring blocks of a piece, with their places; as a message: they are there.

    `first` is the number of the first one in the piece, `memory` what the places belong to, `parts` are head, block,
    head, block ..., `heads` is the memory of all heads, and `headers` what must come there, 13 bytes for each block.
    """

    piece_index: int
    first: int
    memory: object
    parts: list[memoryview]
    heads: memoryview
    headers: bytes

    @property
    def block_count(self) -> int:
        """How many blocks."""
        return len(self.parts) // 2

    @property
    def size(self) -> int:
        """Bytes of all blocks; every one but a piece's last has 16 KiB."""
        return (self.block_count - 1) * BLOCK_SIZE + len(self.parts[-1])

    def cut(self, begin: int, end: int) -> "BlockRun":
        """Return the blocks from number `begin` to `end` of the run."""
        first, last = HEADER_LENGTH * begin, HEADER_LENGTH * end
        heads, headers = self.heads[first:last], self.headers[first:last]
        return BlockRun(
            self.piece_index, self.first + begin, self.memory, self.parts[2 * begin : 2 * end], heads, headers
        )

    def is_expected(self, number: int) -> bool:
        """Tell whether what came before a block, as far as it came, is that block's head."""
        first, after = HEADER_LENGTH * number, HEADER_LENGTH * (number + 1)
        return self.heads[first:after] == self.headers[first:after]

    def pieces(self) -> list[Piece]:
        """Return a message for each block."""
        blocks = enumerate(self.parts[1::2], self.first)
        return [Piece(self.piece_index, number * BLOCK_SIZE, block) for number, block in blocks]


Arrival: TypeAlias = Message | BlockRun
"""What a read brings: messages, and blocks that are in their places."""

Places: TypeAlias = Callable[[int], Sequence[BlockRun]]
"""Returns the places of up to so many blocks, in the order in which they were asked for."""


def nowhere(_count: int) -> Sequence[BlockRun]:
    """Expect nothing: the `Places` of whoever reads messages alone."""
    return ()


class ScatterReader:
    """Cuts the bytes that a peer sends into messages; blocks that were expected are in their places already.

    Args:
        max_length: largest length prefix accepted, in bytes.

    Attributes:
        wants_all: the next read is for the rest of a block, and need not return before all of it is there: the last
            one brought no block to its end, and to wake up for each packet of a slow line costs more than to read it.
    """

    def __init__(self, max_length: int) -> None:
        """Begin at the start of a message."""
        self.wants_all = False
        self._plain = MessageReader(max_length)
        self._runs: Sequence[BlockRun] = ()  # of this read; none if it goes to the MessageReader
        self._begun = 0  # bytes that are there of the first block's message
        self._wanted = LEAST_BLOCKS

    def writable(self, places: Places) -> list[memoryview]:
        """Return where the next read goes, in this order; `received` must follow, unless the read brought nothing."""
        self._runs = self._choose_runs(places)
        if not self._runs:
            return [self._plain.writable()]
        buffers = [part for run in self._runs for part in run.parts]
        if self._begun < HEADER_LENGTH:
            buffers[0] = buffers[0][self._begun :]
        else:
            buffers[:2] = [buffers[1][self._begun - HEADER_LENGTH :]]
        return buffers[:1] if self.wants_all else buffers

    def received(self, count: int) -> list[Arrival]:
        """Take note of `count` bytes read into `writable()`; return the messages that are now whole.

        Raises:
            ProtocolViolation: a length prefix above the limit, or a known message of a wrong size.
        """
        if not self._runs:
            return list(self._plain.received(count))
        runs, left = self._runs, self._begun + count
        messages: list[Arrival] = []
        for number, run in enumerate(runs):
            is_whole = left >= HEADER_LENGTH * run.block_count + run.size
            whole = run.block_count if is_whole else left // _STEP
            rest = left - HEADER_LENGTH * run.block_count - run.size if is_whole else left - whole * _STEP
            seen = HEADER_LENGTH * whole + (0 if is_whole else min(rest, HEADER_LENGTH))
            if run.heads[:seen] != run.headers[:seen]:
                return messages + self._reread(run, runs[number + 1 :], left)
            left = rest
            if whole:
                messages.append(run if is_whole else run.cut(0, whole))
            if not is_whole:
                self._runs = [run.cut(whole, whole + 1)]
                break
        self._begun = left
        self.wants_all = left > HEADER_LENGTH and not messages
        self._adapt(runs, messages)
        return messages

    # --- the next read ---------------------------------------------------------------------------------

    def _choose_runs(self, places: Places) -> Sequence[BlockRun]:
        """Return where the next blocks belong, first the rest of one that is half here; nothing to read it plainly."""
        runs = places(self._wanted)
        if self._begun:
            return _beginning_with(self._runs[0], runs)
        if runs and self._plain.partial and not self._take_over(runs[0]):
            return ()
        return runs

    def _take_over(self, run: BlockRun) -> bool:
        """Put the first bytes of a block, which were read plainly, to its place; tell whether they are that block's."""
        begun = self._plain.unread
        if len(begun) < HEADER_LENGTH or begun[:HEADER_LENGTH] != run.headers[:HEADER_LENGTH]:
            return False
        head, block, *_ = run.parts
        head[:] = begun[:HEADER_LENGTH]
        block[: len(begun) - HEADER_LENGTH] = begun[HEADER_LENGTH:]
        self._begun = len(begun)
        self._plain.clear()
        return True

    def _adapt(self, expected: Sequence[BlockRun], messages: Sequence[Arrival]) -> None:
        """Expect more blocks when a read brought all, and fewer when it brought few."""
        came = sum(run.block_count for run in messages if isinstance(run, BlockRun))
        if came == sum(run.block_count for run in expected):
            self._wanted = min(2 * self._wanted, MOST_BLOCKS)
        elif came < self._wanted // 4:
            self._wanted = max(self._wanted // 2, LEAST_BLOCKS)

    # --- something else came -----------------------------------------------------------------------------

    def _reread(self, run: BlockRun, later: Sequence[BlockRun], count: int) -> list[Arrival]:
        """Read the `count` bytes that are in the places of runs as what they are, from the first unexpected head on."""
        whole = next(block for block in range(run.block_count) if not run.is_expected(block))
        count -= whole * _STEP
        self._begun, self._runs, self.wants_all = 0, (), False
        came = self._plain.writable(count)[:count]
        for part in (part for each in (run.cut(whole, run.block_count), *later) for part in each.parts):
            size = min(len(part), len(came))
            came[:size] = part[:size]
            came = came[size:]
        blocks: list[Arrival] = [run.cut(0, whole)] if whole else []
        return blocks + self._plain.received(count)


def _beginning_with(last: BlockRun, runs: Sequence[BlockRun]) -> Sequence[BlockRun]:
    """Return runs that begin with the block that is half here, which may belong elsewhere now, or nowhere.

    Args:
        last: where the last read was to go: if nothing came then, blocks follow there that nobody may expect now.
        runs: what is expected now.
    """
    if runs and runs[0].first == last.first and runs[0].memory is last.memory:
        return runs
    half = last.cut(0, 1)
    others: list[BlockRun] = []
    for run in runs:
        number = half.first - run.first
        if run.piece_index == half.piece_index and 0 <= number < run.block_count:
            others += [part for part in (run.cut(0, number), run.cut(number + 1, run.block_count)) if part.parts]
        else:
            others.append(run)
    return [half, *others]
