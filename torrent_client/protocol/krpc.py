"""The datagrams of the DHT: queries, responses and errors, each one bencoded dictionary.

    query     {t: transaction, y: q, q: method, a: {id, target | info_hash, token, port, implied_port, want}, ro: 1}
    response  {t: transaction, y: r, r: {id, nodes, nodes6, values, token}, ip: address that we were seen under}
    error     {t: transaction, y: e, e: [code, text]}

    nodes     | id 20 | IPv4 4  | port 2 | ...    26 bytes a node, in one string
    nodes6    | id 20 | IPv6 16 | port 2 | ...    38 bytes a node, in one string
    values    [ IPv4 4 or IPv6 16 | port 2, ... ]  a string for each peer

What a datagram lacks is empty in the message. Strict about what is acted upon (ids, ports, tokens, the
transaction, which goes back as it came), and lenient about what can be left out: a cut node at the end of
`nodes`, a value that is no address.

Spec: BEP 5 (KRPC), 32 (nodes6, want), 42 (ip), 43 (ro).
Thread: pure.
Lock: none.
"""

import ipaddress
from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple, TypeAlias

from torrent_client.errors import BencodeError, KrpcError
from torrent_client.protocol.bencode import BencodeValue, bencode_decode, bencode_encode

ID_LENGTH: Final = 20
"""Bytes of a node's id: as many as an info hash has, for both are points of one space."""

MAX_DATAGRAM: Final = 2048
"""Bytes of a datagram that we read at most. BEP 32: 1,024 are sent; what came in one piece has up to 1,500."""

MAX_ANSWER: Final = 1024
"""Bytes of a datagram that we send at most (BEP 32)."""

MAX_DEPTH: Final = 6
"""Lists and dictionaries inside each other; those of BEP 5 need 3."""

MAX_ITEMS: Final = 500
"""Tokens in a datagram at most: a response with 200 peers has some 230."""

MAX_TRANSACTION: Final = 20
"""Bytes of a transaction id at most: it goes back into every answer. Most have 2 or 4."""

MAX_TOKEN: Final = 64
"""Bytes of a token at most: we keep it until we announce. Those of others have 4 to 20."""

MAX_NODES: Final = 16
"""Nodes of one family taken from a response: 8 is what BEP 5 gives, and some give twice as many."""

CLIENT_VERSION: Final = b"PC01"
"""Two letters of BEP 20, as in our peer id, and two digits."""

PROTOCOL_ERROR: Final = 203
METHOD_UNKNOWN: Final = 204

_PORT = Struct(">H")


class Endpoint(NamedTuple):
    """An IP address as text, and a UDP or TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return `host:port`, with brackets around IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class NodeInfo(NamedTuple):
    """A node as others are told of it: its id of 20 bytes, and where it listens."""

    node_id: bytes
    endpoint: Endpoint


class Query(NamedTuple):
    """A question.

    Attributes:
        transaction: what the answer will carry too.
        method: `ping`, `find_node`, `get_peers`, `announce_peer`, or one that we do not know.
        node_id: who asks.
        target: `target` or `info_hash`, 20 bytes; empty for a ping.
        token: for `announce_peer`.
        port: for `announce_peer`; 0 where the datagram's own port is meant (`implied_port`).
        want: `n4` and `n6`, the families of nodes wanted besides the datagram's own (BEP 32).
        read_only: the asker answers no queries (BEP 43).
    """

    transaction: bytes
    method: str
    node_id: bytes
    target: bytes = b""
    token: bytes = b""
    port: int = 0
    want: tuple[str, ...] = ()
    read_only: bool = False

    def encode(self) -> bytes:
        """Return the datagram."""
        arguments: dict[bytes, BencodeValue] = {b"id": self.node_id}
        if self.method == "find_node":
            arguments[b"target"] = self.target
        elif self.target:
            arguments[b"info_hash"] = self.target
        if self.method == "announce_peer":
            arguments |= {b"token": self.token, b"port": self.port, b"implied_port": int(not self.port)}
        if self.want:
            arguments[b"want"] = [family.encode() for family in self.want]
        message: dict[bytes, BencodeValue] = {b"y": b"q", b"q": self.method.encode(), b"a": arguments}
        if self.read_only:
            message[b"ro"] = 1
        return _encode(self.transaction, message)


class Response(NamedTuple):
    """An answer.

    Attributes:
        transaction: the query's.
        node_id: who answers.
        nodes: nodes near the target, of both families.
        values: peers of the info hash.
        token: for announcing to this node.
        seen_as: the address that the asker's query came from.
    """

    transaction: bytes
    node_id: bytes
    nodes: tuple[NodeInfo, ...] = ()
    values: tuple[Endpoint, ...] = ()
    token: bytes = b""
    seen_as: Endpoint | None = None

    def encode(self, *, families: Iterable[str] = ()) -> bytes:
        """Return the datagram.

        Args:
            families: `n4` and `n6`: whose nodes are given even if there are none.
        """
        answer: dict[bytes, BencodeValue] = {b"id": self.node_id}
        four = pack_nodes(node for node in self.nodes if ":" not in node.endpoint.host)
        six = pack_nodes(node for node in self.nodes if ":" in node.endpoint.host)
        if four or "n4" in families:
            answer[b"nodes"] = four
        if six or "n6" in families:
            answer[b"nodes6"] = six
        if self.values:
            answer[b"values"] = [pack_endpoint(value) for value in self.values]
        if self.token:
            answer[b"token"] = self.token
        message: dict[bytes, BencodeValue] = {b"y": b"r", b"r": answer}
        if self.seen_as:
            message[b"ip"] = pack_endpoint(self.seen_as)
        return _encode(self.transaction, message)


class ErrorReply(NamedTuple):
    """A refusal: BEP 5's code, and a text."""

    transaction: bytes
    code: int
    text: str

    def encode(self) -> bytes:
        """Return the datagram."""
        return _encode(self.transaction, {b"y": b"e", b"e": [self.code, self.text.encode()]})


Message: TypeAlias = Query | Response | ErrorReply


def decode(data: bytes) -> Message:
    """Read a datagram.

    Raises:
        KrpcError: it is no message of the DHT; carries the transaction of a query that can be refused.
    """
    if len(data) > MAX_DATAGRAM:
        raise KrpcError(f"{len(data):,} bytes")
    try:
        message = bencode_decode(data, max_depth=MAX_DEPTH, max_items=MAX_ITEMS)
    except BencodeError as error:
        raise KrpcError(str(error)) from error
    if not isinstance(message, dict):
        raise KrpcError("not a dictionary")
    transaction = message.get(b"t")
    if not isinstance(transaction, bytes) or not 0 < len(transaction) <= MAX_TRANSACTION:
        raise KrpcError("no transaction id, or one that is too long")
    match message.get(b"y"):
        case b"q":
            return _query(transaction, message)
        case b"r":
            return _response(transaction, message)
        case b"e":
            return _error(transaction, message)
        case _:
            raise KrpcError("neither query, response nor error")


def pack_endpoint(endpoint: Endpoint) -> bytes:
    """Return an address in 6 (IPv4) or 18 bytes (IPv6)."""
    return ipaddress.ip_address(endpoint.host).packed + _PORT.pack(endpoint.port)


def unpack_endpoint(data: object) -> Endpoint | None:
    """Read 6 or 18 bytes; None for anything else, and for port 0."""
    if not isinstance(data, bytes) or len(data) not in (6, 18):
        return None
    (port,) = _PORT.unpack(data[-2:])
    return Endpoint(str(ipaddress.ip_address(data[:-2])), port) if port else None


def pack_nodes(nodes: Iterable[NodeInfo]) -> bytes:
    """Return nodes of one family in 26 or 38 bytes each."""
    return b"".join(node.node_id + pack_endpoint(node.endpoint) for node in nodes)


def unpack_nodes(data: object, address_length: int) -> list[NodeInfo]:
    """Read `nodes` (an address length of 4 bytes) or `nodes6` (16); a cut node and one with port 0 are left out."""
    if not isinstance(data, bytes):
        return []
    size = ID_LENGTH + address_length + 2
    nodes = []
    for start in range(0, min(len(data) - size + 1, MAX_NODES * size), size):
        endpoint = unpack_endpoint(data[start + ID_LENGTH : start + size])
        if endpoint:
            nodes.append(NodeInfo(data[start : start + ID_LENGTH], endpoint))
    return nodes


def _encode(transaction: bytes, message: dict[bytes, BencodeValue]) -> bytes:
    return bencode_encode(message | {b"t": transaction, b"v": CLIENT_VERSION})


def _query(transaction: bytes, message: dict[bytes, BencodeValue]) -> Query:
    """Read a query; what is wrong with it can be told to its sender."""
    method, arguments = message.get(b"q"), message.get(b"a")
    if not isinstance(method, bytes) or not isinstance(arguments, dict):
        raise KrpcError("a query without method or arguments", transaction)
    name = method.decode("ascii", "replace")
    target = arguments.get(b"info_hash", arguments.get(b"target", b""))
    if target != b"" or name in ("find_node", "get_peers", "announce_peer"):
        target = _id(target, "target or info_hash", transaction)
    assert isinstance(target, bytes)
    token = arguments.get(b"token", b"")
    if not isinstance(token, bytes):
        raise KrpcError("a token that is no string", transaction)
    port = arguments.get(b"port", 0)
    if arguments.get(b"implied_port", 0) not in (0, b""):
        port = 0
    elif name == "announce_peer" and (not isinstance(port, int) or not 0 < port < 65_536):
        raise KrpcError("a port that is none", transaction)
    wanted = arguments.get(b"want")
    want = tuple(family.decode() for family in (b"n4", b"n6") if isinstance(wanted, list) and family in wanted)
    return Query(
        transaction=transaction,
        method=name,
        node_id=_id(arguments.get(b"id"), "id", transaction),
        target=target,
        token=token,
        port=port if isinstance(port, int) else 0,
        want=want,
        read_only=message.get(b"ro") == 1,
    )


def _response(transaction: bytes, message: dict[bytes, BencodeValue]) -> Response:
    """Read a response."""
    answer = message.get(b"r")
    if not isinstance(answer, dict):
        raise KrpcError("a response without values")
    values = answer.get(b"values")
    endpoints = map(unpack_endpoint, values if isinstance(values, list) else ())
    token = answer.get(b"token", b"")
    nodes = unpack_nodes(answer.get(b"nodes"), 4) + unpack_nodes(answer.get(b"nodes6"), 16)
    return Response(
        transaction=transaction,
        node_id=_id(answer.get(b"id"), "id"),
        nodes=tuple(nodes),
        values=tuple(filter(None, endpoints)),
        token=token if isinstance(token, bytes) and len(token) <= MAX_TOKEN else b"",
        seen_as=unpack_endpoint(message.get(b"ip")),
    )


def _error(transaction: bytes, message: dict[bytes, BencodeValue]) -> ErrorReply:
    """Read an error."""
    match message.get(b"e"):
        case [int(code), bytes(text), *_]:
            return ErrorReply(transaction, code, text.decode("utf-8", "replace"))
        case _:
            raise KrpcError("an error without code and text")


def _id(value: object, name: str, query: bytes | None = None) -> bytes:
    """Require 20 bytes."""
    if not isinstance(value, bytes) or len(value) != ID_LENGTH:
        raise KrpcError(f"{name} is not {ID_LENGTH} bytes", query)
    return value
