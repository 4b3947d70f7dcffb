"""The coursework's commands, against a tracker and a peer as strict as a course's own."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.fake_peer import FakePeer, FakeServer, Gone, Script, block_of, fake_id, metainfo, serving, torrent_of
from tests.support import payload
from torrent_client import plain_client, plain_metadata
from torrent_client.bitfield import Bitfield
from torrent_client.cli.main import main
from torrent_client.config import BLOCK_SIZE
from torrent_client.magnet import MagnetLink
from torrent_client.protocol.bencode import bencode_encode
from torrent_client.protocol.extensions import ExtendedHandshake
from torrent_client.protocol.messages import BitfieldMessage, Extended, Interested, KeepAlive, Request, Unchoke
from torrent_client.protocol.metadata import MetadataKind, MetadataMessage

DATA = payload(3 * 2 * BLOCK_SIZE + 1234)
TORRENT = torrent_of(DATA, name="data.bin")
SEEDER_ID = fake_id("lesson")

# The course's own sample torrent, of which its info hash is known.
SAMPLE = (
    b"d8:announce35:http://tracker.example.com/announce4:infod6:lengthi92063e4:name10:sample.txt"
    b"12:piece lengthi32768e6:pieces60:"
    + bytes.fromhex(
        "e876f67a2a8886e8f36b136726c30fa29703022d6e2275e604a0766656736e81ff10b55204ad8d35"
        "f00d937a0213df1982bc8d097227ad9e909acc17"
    )
    + b"ee"
)
SAMPLE_LINES = """\
Tracker URL: http://tracker.example.com/announce
Length: 92063
Info Hash: d69f91e6b2ae4c542468d1073a71d4ea13879a7f
Piece Length: 32768
Piece Hashes:
e876f67a2a8886e8f36b136726c30fa29703022d
6e2275e604a0766656736e81ff10b55204ad8d35
f00d937a0213df1982bc8d097227ad9e909acc17
"""


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second try comes at once."""
    monkeypatch.setattr(plain_client, "ROUND_PAUSE", 0.0)


@contextlib.contextmanager
def lesson_tracker(answer: bytes, length: int = len(DATA)) -> Iterator[tuple[str, list[str]]]:
    """Give the URL of a tracker that redirects, wants every parameter, and notes what is wrong."""
    complaints: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == "/announce/":
                self.send_response(301)
                self.send_header("Location", f"/announce?{url.query}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            fields = {name: values[0] for name, values in parse_qs(url.query, encoding="latin-1").items()}
            wanted = {"info_hash", "peer_id", "port", "uploaded", "downloaded", "left", "compact"}
            complaints.extend(f"no {name}" for name in wanted - fields.keys())
            if len(fields["info_hash"]) != 20 or len(fields["peer_id"]) != 20 or fields["compact"] != "1":
                complaints.append(f"{fields}")
            if not 0 < int(fields["left"]) <= length:
                complaints.append(f"left is {fields['left']}")
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/announce/", complaints
        finally:
            server.shutdown()
            thread.join()


def lesson_peer(peer: FakePeer) -> None:
    """Compare the handshake byte for byte; then take one message at a time, each of which must be the right one."""
    handshake = peer.read_handshake()
    assert handshake.reserved == bytes(8)
    assert handshake.info_hash == TORRENT.info_hash
    peer.send_raw(b"\x13BitTorrent protocol" + bytes.fromhex("0000000000100004") + TORRENT.info_hash + SEEDER_ID)
    peer.send(BitfieldMessage(Bitfield.full(TORRENT.piece_count).to_bytes()))
    serve_one_by_one(peer)


def lesson_magnet_peer(peer: FakePeer, info: bytes = TORRENT.info, chunk: int = 16 * 1024) -> None:
    """The same for a magnet link: extension bit alone, extension handshake first, metadata next, pieces last."""
    assert peer.read_handshake().reserved == bytes.fromhex("0000000000100000")
    peer.send_raw(b"\x13BitTorrent protocol" + bytes.fromhex("0000000000100000") + TORRENT.info_hash + SEEDER_ID)
    peer.send(BitfieldMessage(Bitfield.full(TORRENT.piece_count).to_bytes()), KeepAlive())
    with contextlib.suppress(Gone):
        hello = peer.next_message()
        assert isinstance(hello, Extended)
        assert hello.extension_id == 0
        our_id = ExtendedHandshake.decode(hello.payload).extensions["ut_metadata"]
        peer.send(Extended(0, ExtendedHandshake({"ut_metadata": 123}, metadata_size=len(info)).encode()))
        for number, start in enumerate(range(0, len(info), chunk)):
            assert peer.next_message() == Extended(123, MetadataMessage(MetadataKind.REQUEST, number).encode())
            data = MetadataMessage(MetadataKind.DATA, number, len(info), info[start : start + chunk])
            peer.send(Extended(our_id, data.encode()))
        serve_one_by_one(peer)


def serve_one_by_one(peer: FakePeer) -> None:
    """Wait for `interested`, unchoke, and answer requests."""
    with contextlib.suppress(Gone):
        first = peer.next_message()
        assert first == Interested(), first
        peer.send(Unchoke())
        while True:
            request = peer.next_message()
            assert isinstance(request, Request), request
            peer.send(block_of(TORRENT, DATA, request))


@pytest.fixture
def torrent(tmp_path: Path) -> Iterator[Path]:
    """Give the path of a torrent whose tracker knows one lesson's peer."""
    with FakeServer(lesson_peer) as server:
        peers = bytes([127, 0, 0, 1]) + server.port.to_bytes(2, "big")
        answer = bencode_encode({"interval": 60, "peers": peers})
        with lesson_tracker(answer) as (url, complaints):
            path = tmp_path / "a.torrent"
            path.write_bytes(metainfo(DATA, name="data.bin", announce=url))
            yield path
            assert not complaints


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("5:hello", '"hello"'),
        ("0:", '""'),
        ("i52e", "52"),
        ("i-52e", "-52"),
        ("i4294967300e", "4294967300"),
        ("l5:helloi52ee", '["hello",52]'),
        ("le", "[]"),
        ("lli4eei5ee", "[[4],5]"),
        ("d3:foo3:bar5:helloi52ee", '{"foo":"bar","hello":52}'),
        ("de", "{}"),
        ("d5:innerd4:key16:value14:key2i42e7:listkeyl5:item15:item2i3eeee",
         '{"inner":{"key1":"value1","key2":42,"listkey":["item1","item2",3]}}'),
    ],
)  # fmt: skip
def test_decode_prints_json(value: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without spaces, in the order of the input."""
    assert main(["decode", value]) == 0
    assert capsys.readouterr().out == printed + "\n"


def test_decode_of_nonsense_prints_nothing_but_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, with the offset."""
    assert main(["decode", "i5"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")


def test_decode_shows_bytes_that_are_no_text_without_harm(capsys: pytest.CaptureFixture[str]) -> None:
    """No escape code reaches the terminal."""
    assert main(["decode", "3:\udcff\x1bA"]) == 0
    assert capsys.readouterr().out == '"\\\\xff\\u001bA"\n'


def test_info_prints_the_sample_torrent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The course's own file, of which every line is known."""
    path = tmp_path / "sample.torrent"
    path.write_bytes(SAMPLE)
    assert main(["info", str(path)]) == 0
    assert capsys.readouterr().out == SAMPLE_LINES


def test_peers_prints_what_the_tracker_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One a line, in the tracker's order."""
    answer = bencode_encode({"interval": 60, "peers": bytes.fromhex("b23e552ec9d8 b23e5514c8a2".replace(" ", ""))})
    with lesson_tracker(answer) as (url, complaints):
        path = tmp_path / "a.torrent"
        path.write_bytes(metainfo(DATA, announce=url))
        assert main(["peers", str(path)]) == 0
    assert capsys.readouterr().out == "178.62.85.46:51672\n178.62.85.20:51362\n"
    assert not complaints


def test_handshake_prints_the_peers_id(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """And closes: nothing more is sent."""

    def script(peer: FakePeer) -> None:
        assert peer.read_handshake().reserved == bytes(8)
        peer.send_raw(b"\x13BitTorrent protocol" + bytes(8) + TORRENT.info_hash + SEEDER_ID)
        assert peer.read_until_gone() == []

    path = tmp_path / "a.torrent"
    path.write_bytes(metainfo(DATA, name="data.bin"))
    with FakeServer(script) as server:
        assert main(["handshake", str(path), f"127.0.0.1:{server.port}"]) == 0
    assert capsys.readouterr().out == f"Peer ID: {SEEDER_ID.hex()}\n"


@pytest.mark.parametrize("index", range(4))
def test_download_piece_writes_the_piece(
    torrent: Path, index: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of them, the short last one too; standard output stays empty."""
    output = tmp_path / "new" / "piece"
    assert main(["download_piece", "-o", str(output), str(torrent), str(index)]) == 0
    assert output.read_bytes() == DATA[index * 2 * BLOCK_SIZE : (index + 1) * 2 * BLOCK_SIZE]
    assert capsys.readouterr().out == ""
    assert list(output.parent.iterdir()) == [output]


def test_download_writes_the_file(torrent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In place of a longer one that was there."""
    output = tmp_path / "out"
    output.write_bytes(bytes(2 * len(DATA)))
    assert main(["download", "-o", str(output), str(torrent)]) == 0
    assert output.read_bytes() == DATA
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("index", ["4", "-1"])
def test_download_piece_refuses_a_piece_that_there_is_not(
    index: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anybody is asked for anything."""
    path = tmp_path / "a.torrent"
    path.write_bytes(metainfo(DATA))
    assert main(["download_piece", "-o", str(tmp_path / "out"), str(path), index]) == 1
    assert "there is no piece" in capsys.readouterr().err


def test_what_fails_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tracker knows nobody: the error says so, and OUT stays as it was."""
    output = tmp_path / "out"
    output.write_bytes(b"as it was")
    with lesson_tracker(bencode_encode({"interval": 60, "peers": b""})) as (url, _):
        path = tmp_path / "a.torrent"
        path.write_bytes(metainfo(DATA, announce=url))
        assert main(["download", "-o", str(output), str(path)]) == 1
    assert "there are no peers" in capsys.readouterr().err
    assert output.read_bytes() == b"as it was"
    assert sorted(tmp_path.iterdir()) == [path, output]


def test_out_is_no_directory_with_something_in_it(
    torrent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of a user's is replaced that is more than a file."""
    assert main(["download", "-o", str(tmp_path), str(torrent)]) == 4
    assert "is a directory" in capsys.readouterr().err


# --- magnet links -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def magnet(*scripts: Script) -> Iterator[str]:
    """Give a link whose tracker knows peers with these scripts."""
    with serving(*scripts) as servers:
        peers = b"".join(bytes([127, 0, 0, 1]) + server.port.to_bytes(2, "big") for server in servers)
        with lesson_tracker(bencode_encode({"interval": 60, "peers": peers}), length=1) as (url, complaints):
            yield f"magnet:?xt=urn:btih:{TORRENT.info_hash.hex()}&dn=data.bin&tr={quote(url, safe='')}"
            assert not complaints


def test_magnet_parse_prints_tracker_and_info_hash(capsys: pytest.CaptureFixture[str]) -> None:
    """Of several trackers the first."""
    link = f"magnet:?xt=urn:btih:{TORRENT.info_hash.hex()}&dn=x&tr=http%3A%2F%2Fa.example%2Fannounce&tr=udp%3A%2F%2Fb"
    assert main(["magnet_parse", link]) == 0
    assert capsys.readouterr().out == (
        f"Tracker URL: http://a.example/announce\nInfo Hash: {TORRENT.info_hash.hex()}\n"
    )


def test_magnet_handshake_prints_both_ids(capsys: pytest.CaptureFixture[str]) -> None:
    """The peer's, and the one it gave ut_metadata."""
    with magnet(lesson_magnet_peer) as link:
        assert main(["magnet_handshake", link]) == 0
    assert capsys.readouterr().out == f"Peer ID: {SEEDER_ID.hex()}\nPeer Metadata Extension ID: 123\n"


def test_magnet_info_prints_the_lines_of_info(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly those, from the metadata and the link's tracker; the metadata may come in several pieces."""
    monkeypatch.setattr(plain_metadata, "metadata_pieces", lambda size: -(-size // 50))
    with magnet(lambda peer: lesson_magnet_peer(peer, chunk=50)) as link:
        assert main(["magnet_info", link]) == 0
    printed = capsys.readouterr().out
    path = tmp_path / "a.torrent"
    path.write_bytes(metainfo(DATA, name="data.bin", announce=MagnetLink.parse(link).trackers[0]))
    main(["info", str(path)])
    assert printed == capsys.readouterr().out


def test_magnet_download_piece_writes_the_piece(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the one connection, in the order of the course."""
    output = tmp_path / "piece"
    with magnet(lesson_magnet_peer) as link:
        assert main(["magnet_download_piece", "-o", str(output), link, "1"]) == 0
    assert output.read_bytes() == DATA[2 * BLOCK_SIZE : 4 * BLOCK_SIZE]
    assert capsys.readouterr().out == ""


def test_magnet_download_writes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A peer without metadata is passed over, and serves pieces all the same."""
    output = tmp_path / "out"
    with magnet(lesson_peer_without_extensions, lesson_magnet_peer) as link:
        assert main(["magnet_download", "-o", str(output), link]) == 0
    assert output.read_bytes() == DATA
    assert capsys.readouterr().out == ""


def lesson_peer_without_extensions(peer: FakePeer) -> None:
    """Answer with no reserved bit, and serve."""
    peer.read_handshake()
    peer.send_raw(b"\x13BitTorrent protocol" + bytes(8) + TORRENT.info_hash + fake_id("plain"))
    with contextlib.suppress(Gone):
        peer.send(BitfieldMessage(Bitfield.full(TORRENT.piece_count).to_bytes()))
        serve_one_by_one(peer)


def reject(peer: FakePeer) -> None:
    """Give no metadata after all."""
    peer.shake_hands(TORRENT.info_hash, SEEDER_ID, bytes.fromhex("0000000000100000"))
    peer.expect(Extended)
    peer.send(Extended(0, ExtendedHandshake({"ut_metadata": 3}, metadata_size=100).encode()))
    peer.expect(Extended)
    peer.send(Extended(1, MetadataMessage(MetadataKind.REJECT, 0).encode()))
    peer.read_until_gone()


def no_metadata(peer: FakePeer) -> None:
    """Speak the extension protocol, and no ut_metadata."""
    peer.shake_hands(TORRENT.info_hash, SEEDER_ID, bytes.fromhex("0000000000100000"))
    peer.send(Extended(0, ExtendedHandshake({"ut_pex": 3}).encode()))
    peer.read_until_gone()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (lambda peer: lesson_magnet_peer(peer, info=TORRENT.info.replace(b"data.bin", b"DATA.BIN")), "another hash"),
        (lesson_peer_without_extensions, "extension protocol"),
        (no_metadata, "gives no metadata"),
        (reject, "refuses piece 0"),
    ],
)
def test_magnet_info_says_why_there_is_no_metadata(
    script: Script, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that does not hash to the link's info hash is printed."""
    with magnet(script) as link:
        assert main(["magnet_info", link]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert reason in err


def test_the_links_own_peers_do_without_a_tracker(capsys: pytest.CaptureFixture[str]) -> None:
    """`x.pe` names one; the tracker is down."""
    with FakeServer(lesson_magnet_peer) as server:
        link = f"magnet:?xt=urn:btih:{TORRENT.info_hash.hex()}&tr=http://127.0.0.1:9/announce&x.pe={server.address}"
        assert main(["magnet_handshake", link]) == 0
    assert "123" in capsys.readouterr().out
