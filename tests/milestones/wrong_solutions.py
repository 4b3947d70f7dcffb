"""Deliberately wrong solutions: each is the right one with a mistake that students make, and must fail for that reason.

Also a few solutions of other shapes, which must not fail at all.
"""

from typing import NamedTuple

PARSER, TRACKER, PEER = "torrent_parser.py", "tracker_client.py", "peer_connection.py"
PIECES, MANAGER = "piece_manager.py", "download_manager.py"


class Change(NamedTuple):
    """What is exchanged in a file of the right solution; the whole file where `old` is empty; None deletes it."""

    file: str
    old: str
    new: str | None


class Wrong(NamedTuple):
    """A mistake.

    Attributes:
        task: whose checks must find it.
        mistake: what it is, in words.
        change: how the right solution becomes wrong.
        check: the check that must fail first.
        says: what its sentence must contain.
        hangs: it never ends, so that it is not given much time.
    """

    task: int
    mistake: str
    change: Change
    check: str
    says: str
    hangs: bool = False


WRONG = (
    # --- 1: setup
    Wrong(1, "a file is missing", Change(PIECES, "", None), "test_the_files_are_there", "no piece_manager.py"),
    Wrong(
        1,
        "a module ends the program",
        Change(PARSER, "from typing import Any\n", "import sys\nfrom typing import Any\nsys.exit(1)\n"),
        "test_every_module_can_be_imported",
        "sys.exit at torrent_parser.py line",
    ),
    Wrong(
        1,
        "a module is no Python",
        Change(TRACKER, "", "def generate_peer_id(:\n"),
        "test_every_module_can_be_imported",
        "SyntaxError",
    ),
    Wrong(
        1,
        "a module never ends",
        Change(TRACKER, "", "while True:\n    pass\n"),
        "test_every_module_can_be_imported",
        "still running after 2 s at tracker_client.py line",
        hangs=True,
    ),
    Wrong(
        1,
        "a module ends the process",
        Change(TRACKER, "", "import os\nos._exit(0)\n"),
        "test_every_module_can_be_imported",
        "ended the whole process",
    ),
    # --- 2: bencode
    Wrong(2, "there is nothing", Change(PARSER, "", ""), "test_integers", "torrent_parser.py has no bencode_decode"),
    Wrong(
        2,
        "it returns nothing",
        Change(PARSER, "", "def bencode_decode(data):\n    pass\n"),
        "test_integers",
        "`i42e` is the integer 42, but bencode_decode(b'i42e') is None",
    ),
    Wrong(
        2,
        "integers have no sign",
        Change(PARSER, "int(data[at + 1 : end]), end", "abs(int(data[at + 1 : end])), end"),
        "test_integers",
        "`i-5e` is the integer -5, but bencode_decode(b'i-5e') is 5",
    ),
    Wrong(
        2,
        "strings lose what is no text",
        Change(
            PARSER, "return data[colon + 1 : end], end", 'return data[colon + 1 : end].decode(errors="ignore"), end'
        ),
        "test_strings",
        "need not be text",
    ),
    Wrong(
        2,
        "the length has one digit",
        Change(PARSER, "int(data[at:colon])", "int(data[at : at + 1])"),
        "test_strings",
        "`11:hello world` is the string b'hello world'",
    ),
    Wrong(
        2,
        "lists never end",
        Change(PARSER, "item, at = _value(data, at)", "item, _ = _value(data, at)"),
        "test_lists",
        "still running after 2 s at torrent_parser.py line",
        hangs=True,
    ),
    Wrong(
        2,
        "dictionaries are lists",
        Change(PARSER, 'items if kind == b"l" else', 'items if kind in b"ld" else'),
        "test_dictionaries",
        "is the dictionary",
    ),
    Wrong(
        2,
        "it prints for ever",
        Change(PARSER, "", "def bencode_decode(data):\n    while True:\n        print('x' * 1000)\n"),
        "test_integers",
        "at torrent_parser.py line 3",
        hangs=True,
    ),
    Wrong(
        2,
        "it takes all memory",
        Change(PARSER, "", "def bencode_decode(data):\n    return bytes(1 << 40)\n"),
        "test_integers",
        "MemoryError was raised at torrent_parser.py line 2",
    ),
    # --- 3: torrent file
    Wrong(
        3,
        "the info hash is of what was understood",
        Change(PARSER, "sha1(bencode_encode(info))", "sha1(bencode_encode({k: info[k] for k in list(info)[:4]}))"),
        "test_the_info_hash",
        "further keys in `info`",
    ),
    Wrong(
        3,
        "the info hash is of the whole file",
        Change(PARSER, "sha1(bencode_encode(info))", "sha1(Path(path).read_bytes())"),
        "test_the_info_hash",
        "SHA-1 of all of `info`",
    ),
    Wrong(
        3,
        "hashes are taken for text of 40 digits",
        Change(
            PARSER,
            "hashes[at : at + 20] for at in range(0, len(hashes), 20)",
            "hashes[at : at + 40] for at in range(0, len(hashes), 40)",
        ),
        "test_the_tracker_the_name_and_the_pieces",
        "hashes of 20 bytes",
    ),
    Wrong(
        3,
        "the length is the first file's",
        Change(PARSER, 'sum(entry["length"] for entry in self.files)', 'self.files[0]["length"]'),
        "test_several_files",
        "is their sum",
    ),
    Wrong(
        3,
        "folders are lost",
        Change(PARSER, 'for part in entry[b"path"]]', 'for part in entry[b"path"][-1:]]'),
        "test_several_files",
        "the path and the length of each file",
    ),
    # --- 4: peer id
    Wrong(
        4,
        "19 bytes",
        Change(TRACKER, "k=12", "k=11"),
        "test_it_has_20_bytes_and_begins_with_client_and_version",
        "19 bytes long",
    ),
    Wrong(
        4,
        "no hyphens",
        Change(TRACKER, '"-PC0001-" + "".join', '"xPC0001x" + "".join'),
        "test_it_has_20_bytes_and_begins_with_client_and_version",
        "begins with a hyphen",
    ),
    Wrong(
        4,
        "always the same",
        Change(TRACKER, "random.choices(string.ascii_letters + string.digits, k=12)", '"x" * 12'),
        "test_it_is_another_one_in_every_run",
        "twice",
    ),
    # --- 5: tracker
    Wrong(
        5,
        "the info hash in hexadecimal",
        Change(TRACKER, '"info_hash": self.torrent.info_hash,', '"info_hash": self.torrent.info_hash.hex(),'),
        "test_the_request",
        "parameter `info_hash`, the 20 bytes",
    ),
    Wrong(
        5,
        "no compact",
        Change(TRACKER, '            "compact": 1,\n', ""),
        "test_the_request",
        "parameter `compact`, 1 here",
    ),
    Wrong(
        5,
        "nothing is left to download",
        Change(TRACKER, '"left": self.torrent.length', '"left": 0'),
        "test_the_request",
        "parameter `left`, 100000 here, but `left` came as b'0'",
    ),
    Wrong(
        5,
        "ports with the low byte first",
        Change(TRACKER, 'int.from_bytes(part[4:], "big")', 'int.from_bytes(part[4:], "little")'),
        "test_the_peers_of_the_answer",
        "a port with the high byte first",
    ),
    Wrong(
        5,
        "the interval is forgotten",
        Change(TRACKER, 'self.interval = answer[b"interval"]', "pass"),
        "test_the_peers_of_the_answer",
        "TrackerClient.interval is 0",
    ),
    Wrong(
        5,
        "a failure is taken for peers",
        Change(TRACKER, 'raise RuntimeError(answer[b"failure reason"])', 'return answer[b"failure reason"]'),
        "test_a_tracker_that_refuses",
        "failure reason",
    ),
    # --- 6: handshake
    Wrong(
        6,
        "info hash and peer id change places",
        Change(PEER, "self.info_hash + self.peer_id)", "self.peer_id + self.info_hash)"),
        "test_our_68_bytes",
        "after 8 reserved bytes, the info hash",
    ),
    Wrong(
        6,
        "no reserved bytes",
        Change(PEER, "head + bytes(8) + self", "head + self"),
        "test_our_68_bytes",
        "60 bytes came to the peer",
    ),
    Wrong(
        6,
        "one recv for all",
        Change(PEER, "answer = self._exactly(68)", "answer = self.sock.recv(68)"),
        "test_a_handshake_that_comes_in_parts",
        "TCP is a stream",
    ),
    Wrong(
        6,
        "the answer is not looked at",
        Change(PEER, "if answer[28:48] != self.info_hash:", "if False:"),
        "test_a_peer_with_another_torrent",
        "another info hash",
    ),
    Wrong(
        6,
        "the end of the stream is overlooked",
        Change(PEER, 'raise ConnectionError("the peer has closed")', "continue"),
        "test_a_peer_that_hangs_up",
        "still running after 2 s at peer_connection.py line",
        hangs=True,
    ),
    # --- 7: messages
    Wrong(
        7,
        "the length leaves the id out",
        Change(PEER, 'struct.pack(">IB", 1 + len(payload), number)', 'struct.pack(">IB", len(payload), number)'),
        "test_interested_is_answered_with_unchoke",
        "was still running after 2 s",
        hangs=True,
    ),
    Wrong(
        7,
        "numbers have the low byte first",
        Change(PEER, 'self._send(4, struct.pack(">I", index))', 'self._send(4, struct.pack("<I", index))'),
        "test_the_messages_that_are_sent",
        "`have` is 4 bytes of length, the byte 4",
    ),
    Wrong(
        7,
        "begin before index",
        Change(PEER, 'struct.pack(">III", index, begin, length)', 'struct.pack(">III", begin, index, length)'),
        "test_the_messages_that_are_sent",
        "`request` is 4 bytes of length, the byte 6",
    ),
    Wrong(
        7,
        "one recv for a message",
        Change(PEER, "body = self._exactly(length)", "body = self.sock.recv(length)"),
        "test_the_messages_that_are_received",
        "the peer sent `request`",
    ),
    Wrong(
        7,
        "a keep-alive has no id",
        Change(PEER, '        if length == 0:\n            return None, b""\n', ""),
        "test_keep_alives",
        "IndexError",
    ),
    Wrong(
        7,
        "a message that is cut off is a message",
        Change(PEER, 'raise ConnectionError("the peer has closed")', 'return data + b"\\0" * count'),
        "test_a_peer_that_leaves",
        "in the middle of a message",
    ),
    # --- 8: bitfield
    Wrong(
        8,
        "the lowest bit first",
        Change(PEER, "(7 - i % 8) & 1", "(i % 8) & 1"),
        "test_the_guides_example",
        "the highest bit",
    ),
    Wrong(
        8,
        "haves are ignored",
        Change(PEER, 'self.pieces.add(int.from_bytes(payload, "big"))', "pass"),
        "test_haves_add_to_it",
        "`have` adds a piece",
    ),
    # --- 9: piece manager
    Wrong(
        9,
        "the commonest first",
        Change(PIECES, "rarest = min(", "rarest = max("),
        "test_the_rarest_piece_is_first",
        "fewest peers",
    ),
    Wrong(
        9,
        "in order",
        Change(PIECES, "key=lambda index: sum(index in pieces for pieces in self.peers.values())", "key=int"),
        "test_the_rarest_piece_is_first",
        "fewest peers",
    ),
    Wrong(
        9,
        "a piece for everybody",
        Change(PIECES, '            self.status[rarest] = "downloading"\n', ""),
        "test_the_rarest_piece_is_first",
        "fewest peers",
    ),
    Wrong(
        9,
        "a peer is asked for what others have",
        Change(PIECES, "for index in self.peers[peer] if", "for index in range(len(self.hashes)) if"),
        "test_only_pieces_that_the_peer_has",
        "its bitfield and haves name",
    ),
    Wrong(
        9,
        "everything is good",
        Change(PIECES, "return sha1(data).digest() == self.hashes[index]", "return True"),
        "test_the_hash_decides",
        "accepted a piece with a wrong byte",
    ),
    Wrong(
        9,
        "hexadecimal is compared with bytes",
        Change(PIECES, "sha1(data).digest() ==", "sha1(data).hexdigest() =="),
        "test_the_hash_decides",
        "good piece 0 was refused",
    ),
    Wrong(
        9,
        "complete pieces are forgotten",
        Change(PIECES, 'self.status[index] = "complete"', 'self.status[index] = "missing"'),
        "test_complete_pieces_are_done",
        "not downloaded again",
    ),
    # --- 10: blocks
    Wrong(
        10,
        "one request at a time",
        Change(PEER, "PIPELINE = 8", "PIPELINE = 1"),
        "test_several_requests_are_under_way",
        "at most 1 waited",
    ),
    Wrong(
        10,
        "blocks of 32 KiB",
        Change(PEER, "BLOCK = 16384", "BLOCK = 32768"),
        "test_one_complete_piece",
        "still running",
        hangs=True,
    ),
    Wrong(
        10,
        "the last block is as long as the others",
        Change(PEER, "(begin, min(BLOCK, piece_length - begin))", "(begin, BLOCK)"),
        "test_one_complete_piece",
        "the last piece, which is shorter",
        hangs=True,
    ),
    Wrong(
        10,
        "blocks are put down as they come",
        Change(
            PEER,
            "data[begin : begin + len(payload) - 8] = payload[8:]",
            "data = data[len(payload) - 8 :] + payload[8:]",
        ),
        "test_several_requests_are_under_way",
        "where it belongs",
    ),
    Wrong(
        10,
        "unchoke is not waited for",
        Change(PEER, "        while self.choked:\n            self.receive_message()\n        todo", "        todo"),
        "test_nothing_is_asked_before_unchoke",
        "no request is sent before",
    ),
    Wrong(
        10,
        "whatever comes is a block",
        Change(PEER, "            if number == 7:\n", "            if number is not None:\n"),
        "test_other_messages_may_come_between",
        "was raised at peer_connection.py line",
    ),
    # --- 11: download manager
    Wrong(
        11,
        "one peer only",
        Change(MANAGER, "for address in self._find_peers():", "for address in self._find_peers()[:1]:"),
        "test_the_whole_file_from_three_peers",
        "distributed across the peers",
    ),
    Wrong(
        11,
        "everybody is asked for everything",
        Change(MANAGER, "self.pieces.add_peer(address, connection.pieces)", "self.pieces.add_peer(address, range(24))"),
        "test_peers_that_have_only_a_part",
        "have all of them together",
        hangs=True,
    ),
    Wrong(
        11,
        "what a lost peer had is never asked for again",
        Change(MANAGER, "self.pieces.mark_missing(index)", "pass"),
        "test_a_peer_that_drops",
        "its pieces are downloaded from others",
        hangs=True,
    ),
    # --- 12: disk
    Wrong(
        12,
        "each write makes the file anew",
        Change(MANAGER, 'with path.open("r+b") as file:', 'with path.open("wb") as file:'),
        "test_a_single_file_out_of_order",
        "i x piece length",
    ),
    Wrong(
        12,
        "pieces are put down as they come",
        Change(
            MANAGER,
            'with path.open("r+b") as file:\n                    file.seek(at)',
            'with path.open("ab") as file:\n                    pass',
        ),
        "test_a_single_file_out_of_order",
        "differs from the original",
    ),
    Wrong(
        12,
        "folders are not made",
        Change(MANAGER, "path.parent.mkdir(parents=True, exist_ok=True)", "pass"),
        "test_several_files",
        "FileNotFoundError",
    ),
    Wrong(
        12,
        "a piece lies in one file",
        Change(
            MANAGER,
            "            for path, at, offset, length in self._places(index):\n                path.parent",
            "            for path, at, offset, length in self._places(index)[:1]:\n                path.parent",
        ),
        "test_several_files",
        "reach across files",
    ),
    # --- 13: progress
    Wrong(
        13,
        "nothing is printed",
        Change(MANAGER, 'print(f"{line} peers', '(lambda *_, **__: None)(f"{line} peers'),
        "test_statistics_are_printed_while_it_downloads",
        "the percentage is printed",
    ),
    Wrong(
        13,
        "only the end is printed",
        Change(
            MANAGER,
            "            line = f",
            "            if have < count:\n                continue\n            line = f",
        ),
        "test_statistics_are_printed_while_it_downloads",
        "while the download runs",
    ),
    Wrong(
        13,
        "no time left",
        Change(MANAGER, " ETA {left:.0f} s", ""),
        "test_statistics_are_printed_while_it_downloads",
        "an estimate of the time",
    ),
    # --- 14: resume
    Wrong(
        14,
        "no state",
        Change(MANAGER, "        self._resume()\n", ""),
        "test_complete_pieces_are_not_downloaded_again",
        "are not downloaded again",
    ),
    Wrong(
        14,
        "the state is believed",
        Change(MANAGER, "if self.pieces.verify_piece(index, self._read_piece(index)):", "if self._read_piece(index):"),
        "test_pieces_on_disk_are_verified",
        "verified before they are believed",
    ),
    # --- 15: errors
    Wrong(
        15,
        "hashes are not looked at",
        Change(MANAGER, "if not self.pieces.verify_piece(index, data):", "if not data:"),
        "test_a_piece_with_a_bad_hash",
        "thrown away",
    ),
    Wrong(
        15,
        "a lost peer is lost for ever",
        Change(
            MANAGER,
            "for attempt in range(4):\n            try:\n                self._talk",
            "for attempt in range(1):\n            try:\n                self._talk",
        ),
        "test_a_peer_that_disconnects_and_is_there_again",
        "dialled again",
        hangs=True,
    ),
    Wrong(
        15,
        "every peer is waited for, to the very end",
        Change(
            MANAGER,
            "        began = time.monotonic()\n",
            "        for thread in threading.enumerate():\n            if '_peer' in thread.name:\n                thread.join()\n        began = time.monotonic()\n",
        ),
        "test_a_peer_that_says_nothing",
        "still running",
        hangs=True,
    ),
    Wrong(
        15,
        "one answer of the tracker must do",
        Change(
            MANAGER,
            "for attempt in range(4):\n            try:\n                return",
            "for attempt in range(1):\n            try:\n                return",
        ),
        "test_a_tracker_that_fails_at_first",
        "asked again",
    ),
    Wrong(
        15,
        "the tracker is flooded",
        Change(MANAGER, "time.sleep(2**attempt)", "pass"),
        "test_a_tracker_that_fails_at_first",
        "there is a pause",
    ),
    # --- 16 and 17: documents
    Wrong(16, "no README", Change("README.md", "", None), "test_the_documents_are_there", "no README.md"),
    Wrong(
        16,
        "strings may be cut off",
        Change(PARSER, 'raise ValueError("a string is cut off")', "end = len(data)"),
        "test_corrupted_torrents_are_refused",
        "cut short",
    ),
    Wrong(
        16,
        "a module without a word",
        Change(PIECES, '"""Task 9: which piece next."""', ""),
        "test_every_module_says_what_it_is_for",
        "piece_manager.py begins with a docstring",
    ),
    Wrong(16, "no tests", Change("test_parser.py", "", None), "test_there_are_tests", "tests of its own"),
    Wrong(
        17,
        "no conclusion",
        Change("thesis.md", "5. Conclusion\n", ""),
        "test_the_thesis_has_its_chapters",
        "no conclusion",
    ),
    Wrong(17, "no thesis", Change("thesis.md", "", None), "test_the_thesis_has_its_chapters", "no file called thesis"),
)

OTHER_SHAPES = (
    (
        2,
        "text instead of bytes",
        Change(PARSER, "return data[colon + 1 : end], end", 'return data[colon + 1 : end].decode("latin-1"), end'),
    ),
    (
        2,
        "value and position",
        Change(PARSER, "    return value\n\n\ndef _value", "    return value, end\n\n\ndef _value"),
    ),
    (
        3,
        "all hashes in one string",
        Change(
            PARSER, "self.pieces = [hashes[at : at + 20] for at in range(0, len(hashes), 20)]", "self.pieces = hashes"
        ),
    ),
    (
        3,
        "the info hash in hexadecimal",
        Change(PARSER, "sha1(bencode_encode(info)).digest()", "sha1(bencode_encode(info)).hexdigest()"),
    ),
    (
        3,
        "files as pairs",
        Change(
            PARSER,
            "        self.info_hash",
            '        self.files = [("/".join(e["path"]), e["length"]) for e in self.files]\n        self.info_hash',
        ),
    ),
    (4, "text instead of bytes", Change(TRACKER, "k=12))).encode()", "k=12)))")),
    (
        5,
        "peers as dictionaries",
        Change(
            TRACKER,
            'return [(socket.inet_ntoa(part[:4]), int.from_bytes(part[4:], "big")) for part in parts]',
            'return [{"ip": socket.inet_ntoa(p[:4]), "port": int.from_bytes(p[4:], "big")} for p in parts]',
        ),
    ),
    (
        5,
        "peers as text",
        Change(
            TRACKER,
            'return [(socket.inet_ntoa(part[:4]), int.from_bytes(part[4:], "big")) for part in parts]',
            "return [f\"{socket.inet_ntoa(p[:4])}:{int.from_bytes(p[4:], 'big')}\" for p in parts]",
        ),
    ),
    (6, "handshake() says True", Change(PEER, "return answer[48:]", "return True")),
    (6, "handshake() says False", Change(PEER, 'raise ValueError("another torrent")', "return False")),
    (
        7,
        "messages as dictionaries",
        Change(PEER, "        return number, payload\n", '        return {"id": number, "payload": payload}\n'),
    ),
    (7, "keep-alives as None", Change(PEER, 'return None, b""', "return None")),
    (
        7,
        "names instead of ids",
        Change(
            PEER,
            "        return number, payload\n",
            '        return {0: "choke", 1: "unchoke", 4: "have", 5: "bitfield"}.get(number, number), payload\n',
        ),
    ),
    (
        6,
        "a whole torrent instead of its hash",
        Change(
            PEER,
            "port: int, info_hash: bytes, peer_id: bytes) -> None:",
            "port: int, torrent, peer_id: bytes) -> None:\n        info_hash = torrent.info_hash",
        ),
    ),
    (
        9,
        "the next piece by a bitfield",
        Change(
            PIECES,
            "def get_next_piece(self, peer: Hashable) -> int | None:",
            "def get_next_piece(self, bitfield: list) -> int | None:\n        peer = next(p for p in self.peers if self.peers[p] == {i for i, has in enumerate(bitfield) if has})",
        ),
    ),
    (
        11,
        "peers are given to the manager",
        Change(
            MANAGER,
            "output_dir: str) -> None:",
            "output_dir: str, peers: list) -> None:\n        self._find_peers = lambda: peers",
        ),
    ),
    (8, "pieces and no method", Change(PEER, "def has_piece(self", "def _has_piece(self")),
)
