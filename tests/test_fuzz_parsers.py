"""Any bytes give a value or the one documented error: damaged samples for every parser.

Every input follows from a seed, which a failure prints together with the input: `damaged(SEED)` of the test's
samples makes it again. The seeds are the same in every run, so that a failure stays until it is repaired.
"""

import io
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from torrent_client.bitfield import Bitfield
from torrent_client.config import MAX_MESSAGE_LENGTH, RECEIVE_BUFFER_MAX
from torrent_client.errors import BencodeError, HandshakeError, MetainfoError, ProtocolViolation, TrackerError
from torrent_client.protocol import messages
from torrent_client.protocol.bencode import (
    BencodeValue,
    bencode_decode,
    bencode_decode_prefix,
    bencode_decode_spans,
    bencode_encode,
)
from torrent_client.protocol.extensions import ExtendedHandshake
from torrent_client.protocol.messages import Handshake, MessageReader
from torrent_client.protocol.pex import PexContact, PexFlags, PexMessage
from torrent_client.resume import ResumeData, ResumeFile, parse_ranges
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import AnnounceResponse, parse_announce

INPUTS = 2000
"""Damaged inputs for each parser: a second or less for each, on a slow machine."""

HARD_NUMBERS = (0, 1, -1, 19, 20, 255, 256, 65_535, 65_536, 2**31, 2**32 - 1, 2**32, 2**63, 10**19, -(10**19))
HARD_TEXTS = (b"", b"\0", b"..", b"/etc/passwd", b"\xff\xfe", b"a" * 300, b"\x1b[2J", b"i1e", b"x" * 20, b"con")


# --- damage -----------------------------------------------------------------------------------------------


def flip_bits(rng: Random, data: bytearray) -> None:
    """Flip a few bits."""
    for _ in range(rng.choice((1, 1, 2, 8))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(rng: Random, data: bytearray) -> None:
    """Take a slice out, often the end."""
    start = rng.randint(0, len(data))
    del data[start : rng.choice((len(data), start + 1, start + rng.randint(0, 20)))]


def repeat(rng: Random, data: bytearray) -> None:
    """Insert a slice of the data somewhere in it."""
    start = rng.randint(0, len(data))
    part = data[start : start + rng.randint(1, 30)] * rng.choice((1, 1, 1, 200))
    at = rng.randint(0, len(data))
    data[at:at] = part


def insert(rng: Random, data: bytearray) -> None:
    """Insert bytes that mean something somewhere, or nothing."""
    part = rng.choice((*HARD_TEXTS, rng.randbytes(rng.randint(1, 9)), b"d" * 200, b"l" * 200, b"e", b"9" * 30, b":"))
    at = rng.randint(0, len(data))
    data[at:at] = part


def overwrite(rng: Random, data: bytearray) -> None:
    """Write a number with a hard size over four bytes."""
    at = rng.randint(0, max(0, len(data) - 4))
    data[at : at + 4] = rng.choice((0, 1, 2, 13, 2**14, 2**20, 2**20 + 1, 2**31, 2**32 - 1)).to_bytes(4, "big")


def damaged(seed: str, samples: Sequence[bytes]) -> bytes:
    """Return one of the samples with damage, or no sample at all; the same for the same seed."""
    rng = Random(seed)
    if rng.random() < 0.05:
        return rng.randbytes(rng.randint(0, 100))
    data = bytearray(rng.choice(samples))
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice((flip_bits, cut, repeat, insert, overwrite))(rng, data)
    return bytes(data)


def hard_value(rng: Random, depth: int = 0) -> Any:  # noqa: ANN401  # any bencoded value
    """Return a value of any type, to be put where another one is expected."""
    kind = rng.randrange(4 if depth < 3 else 2)
    if kind == 0:
        return rng.choice(HARD_NUMBERS)
    if kind == 1:
        return rng.choice(HARD_TEXTS)
    values = [hard_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return values if kind == 2 else {rng.choice(HARD_TEXTS): value for value in values}


def with_a_hard_value(rng: Random, value: Any) -> Any:  # noqa: ANN401  # any bencoded value
    """Return a copy of a value in which one part, however deep, is another value, doubled, or missing."""
    if not value or not isinstance(value, dict | list) or rng.random() < 0.1:
        return hard_value(rng)
    copy = dict(value) if isinstance(value, dict) else list(value)
    key = rng.choice(list(copy)) if isinstance(copy, dict) else rng.randrange(len(copy))
    what = rng.random()
    if what < 0.15:
        del copy[key]
    elif what < 0.25 and isinstance(copy, list):
        copy.insert(key, copy[key])
    else:
        copy[key] = with_a_hard_value(rng, copy[key])
    return copy


def damaged_value(seed: str, samples: Sequence[bytes]) -> bytes:
    """Return bencode that is good, of a value that is not: types, sizes and fields are wrong."""
    rng = Random(seed)
    value = bencode_decode(rng.choice(samples))
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = with_a_hard_value(rng, value)
    return bencode_encode(value)


def attack(
    parse: Callable[[bytes], object],
    documented: type[Exception],
    samples: Sequence[bytes],
    make: Callable[[str, Sequence[bytes]], bytes] = damaged,
    inputs: int = INPUTS,
) -> None:
    """Parse damaged samples; fail on any error but the documented one.

    Args:
        parse: reads bytes, and checks what comes out where something can be said about that.
        documented: the one error that it may raise, and that it must raise now and then.
        samples: good inputs, which it must read.
        make: damages one of them.
        inputs: how many to try.
    """
    for sample in samples:
        parse(sample)
    refused = 0
    for number in range(inputs):
        seed = f"{parse.__qualname__}-{number}"
        data = make(seed, samples)
        try:
            parse(data)
        except documented:
            refused += 1
        except Exception as error:
            shown = data if len(data) < 2000 else data[:2000] + b"..."
            raise AssertionError(f"seed {seed!r} makes {make.__name__} give {shown!r}, which gave {error!r}") from error
    assert refused > inputs // 20, "the damage is no damage"


# --- peers ------------------------------------------------------------------------------------------------


def test_handshake() -> None:
    """68 bytes or a HandshakeError."""

    def parse(data: bytes) -> None:
        handshake = Handshake.decode(data)
        assert [len(part) for part in handshake] == [20, 20, 8]
        assert handshake.encode() == data

    attack(parse, HandshakeError, [Handshake(bytes(20), bytes(20)).encode(), Handshake(*[b"x" * 20] * 2).encode()])


@pytest.mark.parametrize("make", [damaged, damaged_value])
def test_peer_exchange(make: Callable[[str, Sequence[bytes]], bytes]) -> None:
    """Addresses, or a ProtocolViolation."""
    contacts = (PexContact("192.0.2.1", 6881, PexFlags.REACHABLE), PexContact("2001:db8::1", 1))

    def parse(data: bytes) -> None:
        message = PexMessage.decode(data)
        assert PexMessage.decode(message.encode()).added == message.added

    attack(
        parse, ProtocolViolation, [PexMessage(contacts, contacts[:1]).encode(), PexMessage((), contacts).encode()], make
    )


def test_message_stream() -> None:
    """Messages or a ProtocolViolation, in whatever parts the bytes come, and never more memory than the limits."""
    block = bytes(range(256))
    sample = b"".join(
        message.encode()
        for message in (
            messages.BitfieldMessage(b"\xff" * 20),
            messages.Unchoke(),
            messages.Have(7),
            messages.Request(1, 2, 3),
            messages.Piece(1, 0, block),
            messages.KeepAlive(),
            messages.Cancel(1, 2, 3),
            messages.Reject(1, 2, 3),
            messages.AllowedFast(1),
            messages.HaveAll(),
            messages.Port(6881),
            messages.Extended(0, b"d1:md6:ut_pexi1eee"),
            messages.Piece(2, 16_384, block),
        )
    )

    def parse(data: bytes) -> None:
        rng = Random(data)
        reader = MessageReader()
        start = 0
        while start < len(data):
            room = reader.writable()
            count = min(len(room), len(data) - start, rng.choice((1, 3, 17, 1000)))
            room[:count] = data[start : start + count]
            start += count
            for message in reader.received(count):
                assert message.encode()
            assert len(reader._buffer) <= MAX_MESSAGE_LENGTH + RECEIVE_BUFFER_MAX

    attack(parse, ProtocolViolation, [sample])


def test_extension_handshake() -> None:
    """A handshake with sensible fields or a ProtocolViolation, for bad bytes and for bad values."""
    samples = [
        ExtendedHandshake({"ut_pex": 1, "ut_metadata": 2}, "client 1.0", 6881, 250, upload_only=True).encode(),
        b"d1:md11:ut_metadatai3e6:ut_pexi1ee13:metadata_sizei31235e1:pi6881e4:reqqi500e1:v15:\xc2\xb5Torrent 3.5.5e",
    ]

    def parse(data: bytes) -> None:
        hello = ExtendedHandshake.decode(data)
        assert all(1 <= number <= 255 for number in hello.extensions.values())
        assert hello.client is None or hello.client.isprintable()
        assert hello.port is None or 0 < hello.port < 65_536
        assert hello.request_queue is None or hello.request_queue > 0
        assert hello.encode()

    attack(parse, ProtocolViolation, samples)
    attack(parse, ProtocolViolation, samples, damaged_value)


def test_bitfield() -> None:
    """A set of pieces that exist or a ProtocolViolation."""

    def parse(data: bytes) -> None:
        pieces = Bitfield.from_bytes(data, 30)
        assert all(index < 30 for index in pieces)
        assert pieces.to_bytes() == data

    attack(parse, ProtocolViolation, [b"\xff\xff\xff\xfc", bytes(4)])


# --- bencode ----------------------------------------------------------------------------------------------

VALUES = [
    b"d3:agei25e4:listli1ei-2e4:spamee",
    b"ld1:ai1e1:bl1:xee0:i-100000ee",
    b"l" * 50 + b"e" * 50,
    b"10:0123456789",
]


@pytest.mark.parametrize("decode", [bencode_decode, bencode_decode_prefix, bencode_decode_spans])
def test_bencode(decode: Callable[[bytes], object]) -> None:
    """A value or a BencodeError; what was decoded can be encoded again, except that its offset may be wrong."""

    def parse(data: bytes) -> None:
        try:
            result = decode(data)
        except BencodeError as error:
            if not 0 <= error.offset <= len(data):
                raise ValueError(f"offset {error.offset} of {len(data)} bytes") from error
            raise
        value = result[0] if isinstance(result, tuple) else result
        assert bencode_decode(bencode_encode(value)) == value

    attack(parse, BencodeError, VALUES)


# --- torrents ---------------------------------------------------------------------------------------------


def torrent(info: dict[bytes, BencodeValue], **fields: BencodeValue) -> bytes:
    """Return a .torrent file."""
    common: dict[bytes, BencodeValue] = {b"piece length": 16_384, b"pieces": bytes(range(60)), b"name": b"name"}
    named: dict[bytes, BencodeValue] = {key.replace("_", " ").encode(): value for key, value in fields.items()}
    return bencode_encode({**named, b"info": common | info})


TORRENTS = [
    torrent({b"length": 40_000}, announce=b"http://tracker.example/announce"),
    torrent(
        {
            b"files": [
                {b"length": 10_000, b"path": [b"a", b"b.txt"]},
                {b"length": 6_384, b"path": [b".pad", b"6384"], b"attr": b"p"},
                {b"length": 23_616, b"path": [b"A", b"B.txt"], b"path.utf-8": ["Ä".encode(), b"con"]},
                {b"length": 0, b"path": [b".."]},
            ],
            b"private": 1,
            b"meta version": 2,
            b"source": b"tests",
            b"name.utf-8": "näme".encode(),
        },
        comment=b"a comment",
        created_by=b"tests",
        creation_date=1_700_000_000,
        nodes=[[b"192.0.2.1", 6881], [b"2001:db8::1", 1]],
    ).replace(b"7:comment", b"8:url-listl26:http://seed.example/files/e7:comment"),
]


def read_torrent(data: bytes) -> None:
    """Read a torrent, and check what everything after it relies on."""
    facts = TorrentFile.from_bytes(data)
    assert len(facts.info_hash) == 20
    assert facts.piece_length > 0
    assert facts.piece_count == -(-facts.total_length // facts.piece_length)
    assert facts.info in data
    offset = 0
    for file in facts.files:
        assert file.offset == offset
        assert file.length >= 0
        assert not file.path.is_absolute()
        assert not {"", ".", ".."} & set(file.path.parts)
        assert "\0" not in str(file.path)
        assert str(file.path).encode()  # can be written: no half of a surrogate pair
        offset += file.length
    assert len({str(file.path).casefold() for file in facts.files}) == len(facts.files)
    assert all(0 < port < 65_536 for _, port in facts.nodes)
    assert all(all(tier) for tier in facts.trackers)


def test_torrent_with_bad_bytes() -> None:
    """A torrent that can be downloaded safely or a MetainfoError."""
    attack(read_torrent, MetainfoError, TORRENTS)


def test_torrent_with_bad_values() -> None:
    """Good bencode with wrong types, sizes and fields: the same."""
    attack(read_torrent, MetainfoError, TORRENTS, damaged_value, 2 * INPUTS)


# --- trackers ---------------------------------------------------------------------------------------------

ANSWERS = [
    b"d8:completei5e10:incompletei3e8:intervali1800e12:min intervali60e5:peers12:"
    + bytes([192, 0, 2, 1, 26, 225, 192, 0, 2, 2, 0, 80])
    + b"6:peers618:"
    + bytes([32, 1, 13, 184] + [0] * 11 + [1, 26, 225])
    + b"10:tracker id3:xyz15:warning message7:be quiee",
    b"d8:intervali60e5:peersld2:ip9:192.0.2.17:peer id20:aaaaaaaaaaaaaaaaaaaa4:porti6881eed2:ip4:host4:porti1eeee",
]


def read_answer(data: bytes) -> None:
    """Read a tracker's answer, and check what everything after it relies on."""
    answer = parse_announce(data)
    assert isinstance(answer, AnnounceResponse)
    assert answer.interval >= 0
    assert answer.min_interval >= 0
    for peer in answer.peers:
        assert 0 < peer.port < 65_536
        assert peer.host
        assert str(peer).isprintable(), "an address is shown on a terminal"
    assert answer.warning is None or answer.warning.isprintable()


def test_tracker_answer_with_bad_bytes() -> None:
    """Peers or a TrackerError."""
    attack(read_answer, TrackerError, ANSWERS)


def test_tracker_answer_with_bad_values() -> None:
    """Good bencode with wrong types, sizes and fields: the same."""
    attack(read_answer, TrackerError, ANSWERS, damaged_value)


@pytest.mark.parametrize("key", [b"failure reason", b"retry in"])
def test_tracker_failure_with_bad_values(key: bytes) -> None:
    """Whatever the tracker gives as a reason, it is a TrackerError that can be shown and a time that can be waited."""
    rng = Random(0)
    for _ in range(INPUTS // 10):
        body = bencode_encode({b"failure reason": b"go away", b"retry in": b"never", key: hard_value(rng)})
        with pytest.raises(TrackerError) as caught:
            parse_announce(body)
        assert str(caught.value).isprintable()
        assert caught.value.retry_in is None or 0 < caught.value.retry_in < 1e6


# --- our own files ----------------------------------------------------------------------------------------


def damaged_json(seed: str, samples: Sequence[bytes]) -> bytes:
    """Return JSON with a wrong value somewhere, some of which only JSON can express."""
    rng = Random(seed)
    value = json.loads(rng.choice(samples))
    for _ in range(rng.choice((1, 1, 2, 3))):
        key = rng.choice(list(value))
        rest = rng.choice((None, True, 1e400, float("nan"), -1, 2**70, 0.5, "", "9-1", "0-", "-1", "x", [], {}, [[]]))
        if key == "files" and rng.random() < 0.7:
            value[key] = [[rest, rest, rest], *[[rest] * rng.randint(0, 4)] * rng.randint(0, 1)]
        elif rng.random() < 0.2:
            value.pop(key)
            if not value:
                break
        else:
            value[key] = rest
    return json.dumps(value).encode()


class InMemory:
    """What stands for the path of a state file: writing thousands of files takes longer than all the rest."""

    data = b""

    def open(self, mode: str) -> io.BytesIO:
        """Open the file."""
        assert mode == "rb"
        return io.BytesIO(self.data)


@pytest.mark.parametrize("make", [damaged, damaged_json])
def test_state_file(make: Callable[[str, Sequence[bytes]], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that fits the torrent or none, and never an error: files are then hashed again."""
    facts = TorrentFile.from_bytes(TORRENTS[0])
    file: Any = InMemory()
    state = ResumeFile(Path(), facts, Path())
    state.path = file
    sample = {
        "info_hash": facts.info_hash.hex(),
        "name": "name",
        "directory": "/home/ann/Downloads",
        "pieces": 3,
        "completed": "0-1",
        "uploaded": 0,
        "downloaded": 98304,
        "files": [["name", 40_000, 1_700_000_000_123_456_789]],
        "boot": "4f2a",
        "synced": True,
    }
    refusal = type("NoState", (Exception,), {})
    monkeypatch.setattr(logging.getLogger("torrent_client.resume"), "disabled", True)  # it would warn each time

    def parse(data: bytes) -> None:
        file.data = data
        found = state.load()
        if found is None:
            raise refusal
        assert isinstance(found, ResumeData)
        assert found.completed.size == 3
        assert found.completed.bits >> 3 == 0
        assert found.uploaded >= 0
        assert found.downloaded >= 0
        for path, stamp in found.stamps.items():
            assert isinstance(path, str)
            assert [type(number) for number in stamp] == [int, int]

    attack(parse, refusal, [json.dumps(sample).encode()], make)


def test_piece_ranges() -> None:
    """Pieces that exist or a ValueError."""

    def parse(data: bytes) -> None:
        pieces = parse_ranges(data.decode("latin-1"), 100)
        assert all(0 <= index < 100 for index in pieces)

    attack(parse, ValueError, [b"0-99", b"0,2,4-7,99", b"", b"5"])
