"""Task 2: Implement Bencode Decoder."""

from collections.abc import Mapping
from typing import Any

from tests.milestones.lesson import encode, made_up, make_torrent, shown
from tests.milestones.student import Student, Task

TASK = Task(
    2,
    "Implement Bencode Decoder",
    "Parse the bencode format used in .torrent files",
    "`bencode_decode()` function that converts bencode to Python objects",
    """\
torrent_parser.py
    def bencode_decode(data: bytes):
        '''Return the value: int, bytes (or str), list, or dict.'''""",
    "Write a function that gets the bytes and a position, looks at the byte there (i, l, d or a digit), and "
    "returns the "
    "value and the position after it; lists and dictionaries call it again. Keep strings as bytes: hashes are no text.",
)

BENCODING = 'BEP 3, section "bencoding"'


def decoded(student: Student, data: bytes) -> Any:
    """Return what bencode_decode gives; of (value, rest) the value."""
    value = student.find("torrent_parser", "bencode_decode", "decode", "bdecode")(data)
    return value[0] if isinstance(value, tuple) and len(value) == 2 else value


def check(student: Student, kind: str, examples: Mapping[bytes, object]) -> None:
    """Decode examples."""
    for data, value in examples.items():
        with student.rule(f"`{shown(data)[2:-1]}` is the {kind} {shown(value)}", BENCODING):
            student.equal(decoded(student, data), value, f"bencode_decode({shown(data)})")


def test_integers(student: Student) -> None:
    """Integers: i42e."""
    check(student, "integer", {b"i42e": 42, b"i-5e": -5, b"i0e": 0, b"i2147483648000e": 2147483648000})


def test_strings(student: Student) -> None:
    """Strings: 4:spam; the number counts bytes."""
    check(student, "string", {b"4:spam": b"spam", b"11:hello world": b"hello world", b"0:": b"", b"3:i1e": b"i1e"})
    binary = bytes(range(256))
    with student.rule("a string is any bytes, such as SHA-1 hashes, and need not be text", BENCODING):
        student.equal(decoded(student, encode(binary)), binary, "bencode_decode() of a string of all 256 bytes")


def test_lists(student: Student) -> None:
    """Lists: li1ei2ee, also empty and nested."""
    examples: dict[bytes, object] = {
        b"li1ei2ee": [1, 2],
        b"l4:spam3:egge": [b"spam", b"egg"],
        b"le": [],
        b"lli1eel0:ee": [[1], [b""]],
    }
    check(student, "list", examples)


def test_dictionaries(student: Student) -> None:
    """Dictionaries: d3:cow3:mooe, also empty and nested."""
    examples: dict[bytes, object] = {
        b"d3:cow3:moo4:spam4:eggse": {b"cow": b"moo", b"spam": b"eggs"},
        b"de": {},
        b"d4:infod6:lengthi3e4:listl1:aee3:zzzi-1ee": {b"info": {b"length": 3, b"list": [b"a"]}, b"zzz": -1},
    }
    check(student, "dictionary", examples)


def test_a_torrent_file(student: Student) -> None:
    """A sample torrent file, whole."""
    torrent = make_torrent(student.folder, made_up(100_000))
    with student.rule("a .torrent file is one bencoded dictionary with `announce` and `info`", BENCODING):
        value = decoded(student, torrent.path.read_bytes())
        student.expect(isinstance(value, dict), f"bencode_decode() of a torrent file gave {shown(value)}")
        fields = {key if isinstance(key, bytes) else str(key).encode(): item for key, item in value.items()}
        student.expect(b"info" in fields, f"its keys are {shown(sorted(fields))}")
        info = {key if isinstance(key, bytes) else str(key).encode(): item for key, item in fields[b"info"].items()}
        student.equal(info.get(b"pieces"), b"".join(torrent.hashes), "`pieces` in `info`")
