"""The trace: messages in words, connections cut anywhere, captures, diagrams, and what a broken sink does."""

import errno
import io
import json
import struct
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_peer import fake_id
from torrent_client import trace
from torrent_client.cli.main import main
from torrent_client.cli.trace import diagram, traced
from torrent_client.protocol import messages, udp_tracker
from torrent_client.protocol.describe import describe, describe_handshake, extension_numbers, show_value
from torrent_client.protocol.extensions import ExtendedHandshake
from torrent_client.trace_pcap import PcapWriter
from torrent_client.tracer import TraceEvent, Tracer, line_of, write_jsonl

HANDSHAKE = messages.Handshake(bytes(range(20)), fake_id("peer"), messages.reserved_bits(messages.RESERVED_FAST))
EVERY_MESSAGE: list[messages.Message] = [
    messages.KeepAlive(),
    messages.Choke(),
    messages.Unchoke(),
    messages.Interested(),
    messages.NotInterested(),
    messages.Have(7),
    messages.BitfieldMessage(b"\xff\x80"),
    messages.Request(1, 16384, 16384),
    messages.Piece(1, 16384, b"x" * 100),
    messages.Cancel(1, 16384, 16384),
    messages.Port(6881),
    messages.SuggestPiece(3),
    messages.HaveAll(),
    messages.HaveNone(),
    messages.Reject(1, 0, 16384),
    messages.AllowedFast(4),
    messages.Extended(0, ExtendedHandshake(extensions={"ut_pex": 2}).encode()),
    messages.Extended(3, b"d8:msg_typei1e5:piecei0eexyz"),
    messages.Unknown(99, b"abc"),
]


@pytest.mark.parametrize("message", EVERY_MESSAGE, ids=lambda message: type(message).__name__)
def test_every_message_has_a_name_a_meaning_and_its_own_bytes(message: messages.Message) -> None:
    what = describe(message)
    data = message.encode()
    assert what.name
    assert what.meaning.endswith(".")
    assert what.spec.startswith("BEP ")
    assert what.size == len(data)
    assert b"".join(field.data for field in what.fields)[:20] == data[: min(20, sum(len(f.data) for f in what.fields))]


def test_fields_are_named_with_their_values() -> None:
    fields = {name: (value, data) for name, value, data in describe(messages.Request(3, 16384, 512)).fields}
    assert fields["index"] == ("3", b"\0\0\0\3")
    assert fields["begin"] == ("16384", b"\0\0\x40\0")
    assert fields["length"] == ("512", b"\0\0\2\0")


def test_the_handshake_says_its_features_and_client() -> None:
    fields = {name: value for name, value, _ in describe_handshake(HANDSHAKE).fields}
    assert fields["reserved"] == "fast extension"
    assert fields["info hash"] == bytes(range(20)).hex()


def test_an_extension_is_called_by_the_name_that_the_receiver_gave_it() -> None:
    hello = messages.Extended(0, ExtendedHandshake(extensions={"ut_pex": 3, "off": 0}).encode())
    numbers = extension_numbers(hello)
    assert numbers == {3: "ut_pex"}
    what = describe(messages.Extended(3, b"de"), numbers)
    assert (what.name, what.spec) == ("extended ut_pex", "BEP 11")
    assert extension_numbers(messages.Choke()) is None
    assert extension_numbers(messages.Extended(0, b"garbage")) == {}


def test_strange_bytes_are_shown_without_control_characters() -> None:
    assert "\x1b" not in show_value({b"\x1b[1m": b"\x1b[2m", b"l": [1, b"ok"]})
    assert len(show_value([b"x" * 5000])) <= 300


@pytest.mark.parametrize("step", [1, 3, 68, 1000])
def test_a_stream_is_cut_into_messages_however_its_bytes_come(step: int) -> None:
    events: list[TraceEvent] = []
    stream = Tracer([events.append]).stream("peer", ("1.1.1.1", 1), ("2.2.2.2", 2), outgoing=True)
    data = HANDSHAKE.encode() + b"".join(message.encode() for message in EVERY_MESSAGE)
    for start in range(0, len(data), step):
        stream.received(data[start : start + step])
    assert events[1].name == "handshake"
    assert len(events) == 2 + len(EVERY_MESSAGE)
    assert {event.direction for event in events[1:]} == {"received"}


def test_each_side_names_the_extensions_that_the_other_one_sends_it() -> None:
    events: list[TraceEvent] = []
    stream = Tracer([events.append]).stream("peer", ("1.1.1.1", 1), ("2.2.2.2", 2), outgoing=True)
    stream.shook_hands(HANDSHAKE.encode(), HANDSHAKE.encode(), outgoing=True)
    stream.received(messages.Extended(0, ExtendedHandshake(extensions={"ut_metadata": 9}).encode()).encode())
    stream.sent(messages.Extended(9, b"de").encode())
    stream.received(messages.Extended(9, b"de").encode())
    assert [event.name for event in events[-2:]] == ["extended ut_metadata", "extended number 9"]


def test_a_stream_of_garbage_ends_the_trace_of_that_stream_alone() -> None:
    events: list[TraceEvent] = []
    stream = Tracer([events.append]).stream("peer", ("1.1.1.1", 1), ("2.2.2.2", 2), outgoing=False)
    stream.received(b"\xff" * 200)
    stream.sent(HANDSHAKE.encode())
    stream.closed("it is none")
    assert [(event.direction, event.name) for event in events] == [
        ("opened", "connection"),
        ("sent", "handshake"),
        ("closed", "connection"),
    ]


def test_a_sink_that_fails_is_given_up_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_event: TraceEvent) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    events: list[TraceEvent] = []
    tracer = Tracer([broken, events.append])
    tracer.note("peer", "a", "opened", "connection")
    tracer.note("peer", "a", "closed", "connection")
    assert len(events) == 2
    assert caplog.text.count("the trace ends") == 1


def test_nothing_is_followed_while_nobody_traces() -> None:
    assert not trace.is_on()
    assert trace.follow(None, "x", outgoing=True) is None  # type: ignore[arg-type]


def test_events_survive_the_file() -> None:
    file = io.StringIO()
    event = TraceEvent(1.5, "peer", "a:1", "sent", "have", [("index", "3", "00000003")], "It has it.", "BEP 3", 9)
    write_jsonl(file)(event)
    assert TraceEvent.from_json(file.getvalue()).name == "have"
    assert TraceEvent.from_json(file.getvalue()).fields == [("index", "3", "00000003")]
    assert TraceEvent.from_json(file.getvalue()) == event
    good = {"time": 1, "kind": "peer", "remote": "a", "direction": "sent", "name": "x", "fields": []}
    wrong = [json.dumps(good | change) for change in ({"time": "x"}, {"time": None}, {"time": 1e300}, {"size": []})]
    for bad in ("[]", "{}", "x", '{"fields": [[1]]}', "[" * 100_000, *wrong):
        with pytest.raises(ValueError):  # noqa: PT011 - of json's own and ours
            TraceEvent.from_json(bad)


def test_a_strangers_trace_writes_no_escape_codes_onto_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J"
    event = {"time": 1, "kind": evil, "remote": 5, "direction": "sent", "name": evil, "meaning": evil, "spec": evil}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(event | {"fields": [[evil, evil, evil]]}) + "\n")
    for more in ([], ["--lines"]):
        assert main(["trace", str(path), *more]) == 0
        assert "\x1b" not in capsys.readouterr().out


def test_a_peer_that_hangs_up_after_its_handshake_is_followed_all_the_same() -> None:
    class Gone:
        def getsockname(self) -> tuple[str, int]:
            return "127.0.0.1", 1

        def getpeername(self) -> tuple[str, int]:
            raise OSError(errno.ENOTCONN, "not connected")

    events: list[TraceEvent] = []
    with trace.tracing(Tracer([events.append])):
        followed = trace.follow(Gone(), "192.0.2.1:5", outgoing=True)
        assert followed
        followed.closed("it hung up")
    assert [(event.remote, event.direction) for event in events] == [
        ("192.0.2.1:5", "opened"),
        ("192.0.2.1:5", "closed"),
    ]


@pytest.mark.parametrize("option", ["trace_file", "trace_pcap"])
def test_a_full_disk_ends_the_trace_and_not_the_download(option: str, caplog: pytest.LogCaptureFixture) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    with traced(Namespace(json=False, **{option: full})):
        trace.datagram("dht", lambda: ("127.0.0.1", 1), ("127.0.0.1", 2), b"de", sent=True)
    assert "/dev/full is not complete" in caplog.text


def test_a_line_has_the_fields_with_their_bytes_and_the_meaning() -> None:
    event = TraceEvent(0.0, "peer", "a:1", "sent", "have", [("index", "3", "00000003")], "It has it.", "BEP 3", 9)
    line = line_of(event)
    assert "--> a:1" in line
    assert "index 3 [00000003]" in line
    assert "It has it.  (BEP 3)" in line


def drawn(*steps: tuple[str, str, str]) -> Iterator[str]:
    """Draw events of (remote, direction, name)."""
    return diagram([TraceEvent(1.0, "peer", *step) for step in steps], 200)


def test_the_diagram_has_arrows_both_ways_and_puts_neighbours_together() -> None:
    lines = list(drawn(("a", "sent", "request"), ("a", "sent", "request"), ("a", "received", "piece")))
    assert "us" in lines[0]
    assert "a" in lines[0]
    assert "--- request x 2 ---" in lines[1]
    assert lines[1].rstrip().endswith(">|")
    assert "<---" in lines[2]
    assert len(lines) == 3


def test_arrows_to_a_far_lifeline_cross_the_near_one() -> None:
    lines = list(drawn(("a", "sent", "x"), ("b", "sent", "y"), ("b", "received", "z")))
    assert lines[2].index(">") > lines[1].index(">")
    assert lines[3].count("|") == 2


def test_peers_for_which_there_is_no_room_are_named() -> None:
    lines = list(drawn(*((f"peer{number}", "sent", "x") for number in range(7))))
    assert "not drawn: peer4, peer5, peer6" in lines[-1]
    assert list(drawn()) == ["the trace is empty"]


def test_the_trace_command_draws_a_file_and_ignores_a_half_written_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.jsonl"
    with path.open("w") as file:
        write_jsonl(file)(TraceEvent(1.0, "peer", "a:1", "sent", "choke"))
        file.write('{"half')
    assert main(["trace", str(path)]) == 0
    assert "--- choke ---" in capsys.readouterr().out
    assert main(["trace", str(path), "--lines"]) == 0
    assert "--> a:1" in capsys.readouterr().out
    assert main(["trace", str(path), "--peer", "b:2"]) == 0
    assert "empty" in capsys.readouterr().out


def test_what_is_no_trace_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"type": "progress"}) + "\n")
    assert main(["trace", str(path)]) == 1
    assert "line 1" in capsys.readouterr().err
    assert main(["trace", str(tmp_path / "none")]) == 1


def packets_of(data: bytes) -> list[bytes]:
    """Return the packets of a capture."""
    assert struct.unpack("<I", data[:4]) == (0xA1B2C3D4,)
    packets, position = [], 24
    while position < len(data):
        length = struct.unpack("<I", data[position + 8 : position + 12])[0]
        packets.append(data[position + 16 : position + 16 + length])
        position += 16 + length
    return packets


def test_a_capture_holds_the_bytes_in_numbered_segments() -> None:
    file = io.BytesIO()
    writer = PcapWriter(file, lambda: 1000.5)
    writer.opened("s", ("10.0.0.1", 5000), ("10.0.0.2", 6881), outgoing=True)
    writer.data("s", b"x" * 40_000, sent=True)
    writer.data("s", b"y", sent=False)
    writer.closed("s")
    writer.data("s", b"after the end", sent=True)
    packets = packets_of(file.getvalue())
    assert len(packets) == 3 + 2 + 1 + 2
    sequences = [struct.unpack(">I", packet[24:28])[0] for packet in packets[3:6]]
    assert sequences == [1, 1 + 32 * 1024, 1]
    assert packets[5][40:] == b"y"
    for packet in packets:
        total = sum(struct.unpack(">10H", packet[:20]))
        assert (total & 0xFFFF) + (total >> 16) == 0xFFFF, "the checksum of the IP header"


def test_a_capture_takes_ipv6_mapped_and_unknown_addresses_and_datagrams() -> None:
    file = io.BytesIO()
    writer = PcapWriter(file, lambda: 0.0)
    writer.datagram(("::ffff:10.0.0.1", 1), ("10.0.0.2", 2), b"abc", sent=True)
    writer.datagram(("::1", 1), ("10.0.0.2", 2), b"abc", sent=False)
    writer.datagram(("host.example", 1), ("10.0.0.2", 2), b"abc", sent=False)
    v4, v6, unknown = packets_of(file.getvalue())
    assert (v4[0] >> 4, v6[0] >> 4, unknown[0] >> 4) == (4, 6, 4)
    assert v4[-3:] == v6[-3:] == b"abc"


def test_datagrams_of_trackers_and_dht_are_told_in_words() -> None:
    events: list[TraceEvent] = []
    capture = io.BytesIO()
    ends = ("10.0.0.1", 5000), ("10.0.0.2", 6969)
    with trace.tracing(Tracer([events.append], PcapWriter(capture, lambda: 0.0))):
        question = udp_tracker.connect_request(7)
        trace.datagram("tracker", lambda: ends[0], ends[1], question, sent=True)
        trace.datagram("tracker", lambda: ends[0], ends[1], struct.pack(">IIQ", 0, 7, 99), sent=False)
        trace.datagram("dht", lambda: ends[0], ends[1], b"d1:ad2:id3:abce1:q4:ping1:t1:x1:y1:qe", sent=True)
        trace.datagram("dht", lambda: ends[0], ends[1], b"garbage", sent=False)
    assert [event.name for event in events] == ["connect request", "connect response", "ping", "datagram"]
    assert ("transaction id", "7", "00000007") in [tuple(field) for field in events[0].fields]
    assert events[1].fields[-1][:2] == ("connection id", "99")
    assert len(packets_of(capture.getvalue())) == 4


def test_an_http_announce_is_told_with_its_parameters_and_the_answer() -> None:
    events: list[TraceEvent] = []
    capture = io.BytesIO()
    with trace.tracing(Tracer([events.append], PcapWriter(capture, lambda: 0.0))):
        trace.http_exchange("http://t.example:6969/announce?port=1&left=2", "200 OK", b"d8:intervali1800ee")
    assert [event.name for event in events] == ["GET /announce", "HTTP 200 OK"]
    assert ("left", "2", "") in [tuple(field) for field in events[0].fields]
    assert events[1].fields == [("interval", "1800", "")]
    assert b"GET /announce?port=1&left=2 HTTP/1.1" in capture.getvalue()
