"""The DHT's datagrams: BEP 5's examples, the extensions' fields, bounds, and any bytes at all."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torrent_client.errors import KrpcError
from torrent_client.protocol.bencode import bencode_decode, bencode_encode
from torrent_client.protocol.krpc import (
    CLIENT_VERSION,
    MAX_ANSWER,
    MAX_DATAGRAM,
    MAX_NODES,
    Endpoint,
    ErrorReply,
    NodeInfo,
    Query,
    Response,
    decode,
    pack_nodes,
    unpack_endpoint,
    unpack_nodes,
)

ASKER, ANSWERER = b"abcdefghij0123456789", b"mnopqrstuvwxyz123456"
PEERS = (Endpoint("97.120.106.101", 11893), Endpoint("105.100.104.116", 28269))  # `axje.u` and `idhtnm`

EXAMPLES = {
    b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe": Query(b"aa", "ping", ASKER),
    b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re": Response(b"aa", ANSWERER),
    b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee": ErrorReply(b"aa", 201, "A Generic Error Ocurred"),
    b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe": Query(
        b"aa", "find_node", ASKER, ANSWERER
    ),
    b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe": Query(
        b"aa", "get_peers", ASKER, ANSWERER
    ),
    b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re": Response(
        b"aa", ASKER, values=PEERS, token=b"aoeusnth"
    ),
}
"""The datagrams that BEP 5 shows."""


@pytest.mark.parametrize(("datagram", "message"), EXAMPLES.items())
def test_the_examples_of_bep_5_are_read(datagram: bytes, message: object) -> None:
    """Each is what its text says."""
    assert decode(datagram) == message


@pytest.mark.parametrize(("datagram", "message"), EXAMPLES.items())
def test_the_examples_of_bep_5_are_written(datagram: bytes, message: Query | Response | ErrorReply) -> None:
    """Byte for byte, with our version in addition."""
    fields = bencode_decode(datagram)
    assert isinstance(fields, dict)
    assert message.encode() == bencode_encode(fields | {b"v": CLIENT_VERSION})


def test_the_announcement_of_bep_5_is_read() -> None:
    """`implied_port` means the datagram's own port, whatever `port` says."""
    datagram = (
        b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e"
        b"5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe"
    )
    assert decode(datagram) == Query(b"aa", "announce_peer", ASKER, ANSWERER, b"aoeusnth", 0)
    assert decode(datagram.replace(b"implied_porti1e", b"implied_porti0e")) == Query(
        b"aa", "announce_peer", ASKER, ANSWERER, b"aoeusnth", 6881
    )


def test_a_cut_node_is_left_out() -> None:
    """BEP 5's own example of a response has nine bytes of nodes."""
    datagram = b"d1:rd2:id20:0123456789abcdefghij5:nodes9:def456...e1:t2:aa1:y1:re"
    assert decode(datagram) == Response(b"aa", b"0123456789abcdefghij")


def test_nodes_of_both_families_come_back() -> None:
    """26 bytes for IPv4, 38 for IPv6 (BEP 32)."""
    nodes = (NodeInfo(ASKER, Endpoint("192.0.2.7", 6881)), NodeInfo(ANSWERER, Endpoint("2001:db8::7", 51413)))
    response = Response(b"xy", ASKER, nodes, seen_as=Endpoint("198.51.100.9", 7))
    assert decode(response.encode()) == response
    assert len(pack_nodes(nodes[:1])) == 26
    assert len(pack_nodes(nodes[1:])) == 38


def test_extensions_of_queries_come_back() -> None:
    """`want` (BEP 32) and `ro` (BEP 43)."""
    query = Query(b"t", "find_node", ASKER, ANSWERER, want=("n4", "n6"), read_only=True)
    assert decode(query.encode()) == query


def test_the_families_asked_for_are_in_the_answer_even_if_empty() -> None:
    """Some clients take an answer without `nodes` for a broken one."""
    answer = bencode_decode(Response(b"t", ASKER).encode(families=("n4",)))
    assert isinstance(answer, dict)
    assert answer[b"r"] == {b"id": ASKER, b"nodes": b""}


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_an_announcement_without_a_usable_port_is_refused(port: int) -> None:
    """And the sender can be told."""
    arguments = {"id": ASKER, "info_hash": ANSWERER, "token": b"x", "port": port}
    with pytest.raises(KrpcError) as caught:
        decode(bencode_encode({"t": b"tt", "y": b"q", "q": b"announce_peer", "a": arguments}))
    assert caught.value.query == b"tt"


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"le",
        b"d1:y1:qe",
        b"d1:t0:1:y1:qe",
        b"d1:t21:aaaaaaaaaaaaaaaaaaaaa1:y1:qe",
        b"d1:t2:aa1:y1:xe",
        b"d1:rd2:id3:abce1:t2:aa1:y1:re",
        b"d1:eli1ee1:t2:aa1:y1:ee",
        b"d1:t2:aa1:y1:q" + b"0:" * MAX_DATAGRAM + b"e",
        b"d1:a" + b"l" * 50 + b"e" * 50 + b"1:t2:aa1:y1:qe",
    ],
)
def test_what_is_no_message_is_refused(datagram: bytes) -> None:
    """With the one documented error."""
    with pytest.raises(KrpcError):
        decode(datagram)


def test_nodes_are_bounded_and_port_0_is_none() -> None:
    """A response cannot make us remember hundreds of nodes."""
    node = NodeInfo(ASKER, Endpoint("192.0.2.7", 6881))
    assert len(unpack_nodes(pack_nodes([node] * 60), 4)) == MAX_NODES
    assert unpack_endpoint(b"\x01\x02\x03\x04\x00\x00") is None


def test_a_full_answer_is_short_enough() -> None:
    """BEP 32: 1,024 bytes at most, with nodes of both families, peers and the longest transaction."""
    four = [NodeInfo(ASKER, Endpoint(f"192.0.2.{number}", 65_535)) for number in range(8)]
    six = [NodeInfo(ASKER, Endpoint(f"2001:db8::{number}", 65_535)) for number in range(8)]
    for values in (
        [Endpoint(f"192.0.2.{number}", 65_535) for number in range(40)],
        [Endpoint(f"2001:db8::{number}", 65_535) for number in range(14)],
    ):
        full = Response(bytes(20), ASKER, (*four, *six), tuple(values), bytes(8), Endpoint("2001:db8::1", 65_535))
        assert len(full.encode()) <= MAX_ANSWER


bencodable = st.recursive(
    st.integers(-(2**40), 2**40) | st.binary(max_size=40) | st.sampled_from([ASKER, b"q", b"r", b"e", b"ping"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([b"t", b"y", b"q", b"a", b"r", b"e", b"id", b"values", b"nodes"]), inner)
    ),
    max_leaves=12,
)


@given(st.binary(max_size=200) | bencodable.map(bencode_encode))
def test_any_bytes_give_a_message_or_the_documented_error(datagram: bytes) -> None:
    """And what was read can be written and read again."""
    try:
        message = decode(datagram)
    except KrpcError:
        return
    assert isinstance(decode(message.encode()), type(message))


@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_damaged_examples_give_a_message_or_the_documented_error(datagram: bytes, data: st.DataObject) -> None:
    """A byte is changed somewhere."""
    at = data.draw(st.integers(0, len(datagram) - 1))
    damaged = datagram[:at] + data.draw(st.binary(max_size=3)) + datagram[at + 1 :]
    with contextlib.suppress(KrpcError):
        assert isinstance(decode(damaged), Query | Response | ErrorReply)
