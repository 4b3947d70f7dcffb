"""The `create` command: what it takes, what it prints, what it writes, and how it ends."""

import errno
import io
import json
import logging
import os
import signal
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from tests.support import running, tail, wait_until
from torrent_client import torrent_creator
from torrent_client.cli import create as create_module
from torrent_client.cli.arguments import parse
from torrent_client.cli.kinds import parse_piece_size, parse_tier, parse_web_seeds
from torrent_client.cli.main import main
from torrent_client.config import KIB, MIB
from torrent_client.torrent_parser import TorrentFile

MAIN = Path(__file__).parent.parent / "main.py"
STOP_TIMEOUT = 3.0  # seconds; it takes 0.05
HUGE = 1 << 36  # bytes of a file that takes a minute to hash and, being sparse, no room


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty directory, and give the log back afterwards."""
    log = logging.getLogger("torrent_client")
    before = log.level, list(log.handlers)
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    log.setLevel(before[0])
    log.handlers = before[1]


@pytest.fixture
def album(place: Path) -> Path:
    """Return a directory with a hidden file, a backup and a link."""
    root = place / "album"
    (root / "disc 1").mkdir(parents=True)
    (root / "disc 1" / "song.flac").write_bytes(bytes(40 * KIB))
    (root / ".hidden").write_bytes(b"hidden")
    (root / "notes~").write_bytes(b"backup")
    (root / "link").symlink_to("notes~")
    return root


def written(path: Path) -> TorrentFile:
    """Read a torrent, and see that nothing else was left beside it."""
    assert not list(path.parent.glob(".torrent-client-*"))
    return TorrentFile.from_file(path)


def paths(torrent: TorrentFile) -> list[str]:
    """Return the files of a torrent."""
    return [str(file.path) for file in torrent.files]


# --- arguments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", None),
        ("AUTO", None),
        ("16K", 16 * KIB),
        ("256k", 256 * KIB),
        ("512KiB", 512 * KIB),
        ("1M", MIB),
        ("2 MB", 2 * MIB),
        ("16MiB", 16 * MIB),
        ("262144", 256 * KIB),
    ],
)
def test_piece_sizes(text: str, expected: int | None) -> None:
    """With or without a unit; KB means what everybody means by it here."""
    assert parse_piece_size(text) == expected


@pytest.mark.parametrize("text", ["", "0", "18", "256", "8K", "32M", "100K", "-1M", "1G", "1.5M", "K", "M1", "٢56K"])
def test_wrong_piece_sizes(text: str) -> None:
    """The message says what is right: mktorrent takes an exponent and Transmission KiB."""
    with pytest.raises(ArgumentTypeError, match="16K to 16M, such as 256K, or auto"):
        parse_piece_size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://a/announce", ["http://a/announce"]),
        ("http://a/1,https://b/2,udp://c:80/3", ["http://a/1", "https://b/2", "udp://c:80/3"]),
        ("http://a/?x=1,2,http://b/", ["http://a/?x=1,2", "http://b/"]),
        (" http://a/1, http://b/2, ", ["http://a/1", "http://b/2"]),
        ("http://a/1,,http://b/2,", ["http://a/1", "http://b/2"]),
        ("http://[2001:db8::7]:6969/announce", ["http://[2001:db8::7]:6969/announce"]),
        ("wss://tracker.example", ["wss://tracker.example"]),
        ("udp://tracker.example:1337", ["udp://tracker.example:1337"]),
        ("http://пример.example/announce", ["http://пример.example/announce"]),
    ],
)
def test_tiers(text: str, expected: list[str]) -> None:
    """Commas separate URLs only where a URL follows."""
    assert list(parse_tier(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "tracker.example/announce",
        "http://",
        "http:///announce",
        "htp://a/announce",
        "ftp://a/announce",
        "udp://tracker.example/announce",
        "http://a:0/",
        "http://a:x/",
        "http://a:65536/",
        "http://a,b/",
        "http://[::1/",
        "http://a/ b",
        "http://a/\x1b[31m",
        "http://a/\udcff",
        "http://a/1,b/2,http://",
    ],
)
def test_wrong_tiers(text: str) -> None:
    """A typo in a tracker's URL would show only when nobody finds a peer."""
    with pytest.raises(ArgumentTypeError, match=r"has no port|is not a URL such as http://tracker"):
        parse_tier(text)


def test_web_seeds() -> None:
    """Several options and several URLs in one are the same."""
    assert parse_web_seeds("ftp://a/x,http://b/y") == ("ftp://a/x", "http://b/y")
    options = parse(["create", "x", "-w", "http://a/,http://b/", "--web-seed", "http://c/"])
    assert options.web_seed == ["http://a/", "http://b/", "http://c/"]
    with pytest.raises(ArgumentTypeError, match="is not a URL"):
        parse_web_seeds("udp://a:1/x")


def test_every_tracker_option_is_a_tier() -> None:
    """Whatever it is called; those of mktorrent's and transmission-create's users work in any order."""
    words = ["-t", "http://1/", "--announce", "http://2/,http://3/", "-a", "http://4/", "--tracker", "http://5/"]
    tiers = [("http://1/",), ("http://2/", "http://3/"), ("http://4/",), ("http://5/",)]
    assert parse(["create", "x", *words]).tracker == tiers
    assert parse(["create", "x"]).tracker == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        [""],
        ["x", "-o", ""],
        ["x", "--comment", "\udcff"],
        ["x", "--source", "\udcff"],
        ["x", "--piece-size", "5"],
        ["x", "-t", "y"],
        ["x", "y"],
    ],
)
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Code 2; an empty path is a variable that is not set, not the current directory."""
    with pytest.raises(SystemExit) as raised:
        main(["create", *words])
    assert raised.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python main.py ")


def test_help_says_what_is_in(capsys: pytest.CaptureFixture[str]) -> None:
    """And what is not."""
    with pytest.raises(SystemExit) as raised:
        main(["create", "--help"])
    assert raised.value.code == 0
    text = capsys.readouterr().out
    assert "In it: every file, also hidden ones" in text
    assert "Not in it: symbolic links" in text


# --- what it makes ----------------------------------------------------------------------------------------


def test_all_settings_reach_the_torrent(album: Path) -> None:
    """And hidden files are in, excluded ones and links are not."""
    words = [
        "-t",
        "http://1/a,http://2/a",
        "-t",
        "udp://3:1/a",
        "-w",
        "http://4/",
        "-p",
        "-c",
        "Grüße",
        "--source",
        "X",
    ]
    assert main(["create", "album", *words, "--exclude", "*~", "--piece-size", "32K"]) == 0
    torrent = written(Path("album.torrent"))
    assert paths(torrent) == ["album/.hidden", "album/disc 1/song.flac"]
    assert torrent.piece_length == 32 * KIB
    assert torrent.trackers == (("http://1/a", "http://2/a"), ("udp://3:1/a",))
    assert torrent.web_seeds == ("http://4/",)
    assert (torrent.is_private, torrent.comment, torrent.source) == (True, "Grüße", "X")
    assert torrent.creation_date is not None


def test_without_settings_only_the_date_is_added(album: Path) -> None:
    """Empty texts, as from variables that are not set, are no texts; `--no-date` leaves the date out too."""
    assert main(["create", "album", "--comment", "", "--source", ""]) == 0
    torrent = written(Path("album.torrent"))
    assert (torrent.trackers, torrent.comment, torrent.source, torrent.is_private) == ((), None, None, False)
    assert torrent.creation_date is not None
    assert main(["create", "album", "--no-date", "--force"]) == 0
    again = written(Path("album.torrent"))
    assert again.creation_date is None
    assert again.info_hash == torrent.info_hash


@pytest.mark.parametrize("path", [".", "../place", "../place/", "album/.."])
def test_the_torrent_is_not_in_itself(path: str, album: Path) -> None:
    """Made again in the directory that it is of, a torrent stays the same."""
    hashes = set()
    for _ in range(2):
        assert main(["create", path, "--force"]) == 0
        torrent = written(Path("place.torrent"))
        hashes.add(torrent.info_hash)
        assert "place/place.torrent" not in paths(torrent)
    assert len(hashes) == 1


# --- what it prints ---------------------------------------------------------------------------------------


def test_the_path_goes_to_stdout_and_the_rest_to_stderr(album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts read one, people the other."""
    assert main(["create", "album", "-t", "http://1/a", "-e", "*~", "-e", "nope"]) == 0
    torrent = written(Path("album.torrent"))
    captured = capsys.readouterr()
    assert captured.out == "album.torrent\n"
    assert captured.err.splitlines() == [
        "warning: nothing matches --exclude nope",
        "name:      album",
        "size:      40.0 KiB in 3 pieces of 16.0 KiB",
        "files:     2",
        f"left out:  {', '.join(sorted_reasons(captured.err))}",
        "tier 1:    http://1/a",
        f"info hash: {torrent.info_hash.hex()}",
        f"magnet:    magnet:?xt=urn:btih:{torrent.info_hash.hex()}&dn=album&tr=http%3A%2F%2F1%2Fa",
        "seed it:   python main.py album.torrent -o . --seed",
    ]


def sorted_reasons(text: str) -> list[str]:
    """Return what was left out in the order of the file system, which has none."""
    line = next(line for line in text.splitlines() if line.startswith("left out:"))
    reasons = line.removeprefix("left out:  ").split(", ")
    assert sorted(reasons) == ["matching '*~' (1)", "symbolic link (1)"]
    return reasons


def test_json(album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object with what a script wants to know."""
    assert main(["create", "album", "--json", "-o", "x.torrent"]) == 0
    torrent = written(Path("x.torrent"))
    assert json.loads(capsys.readouterr().out) == {
        "path": "x.torrent",
        "info_hash": torrent.info_hash.hex(),
        "magnet": f"magnet:?xt=urn:btih:{torrent.info_hash.hex()}&dn=album",
        "pieces": 3,
        "piece_length": 16 * KIB,
        "size": 40 * KIB + 12,
        "files": 3,
    }


def test_a_strange_name_on_a_terminal_and_in_a_pipe(
    album: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A terminal gets no escape codes, a script gets the very bytes of the name."""
    name = os.fsdecode(b"x\x1b[31m\xff.torrent")
    assert main(["create", "album", "-o", name]) == 0
    assert capfdbinary.readouterr().out == b"x\x1b[31m\xff.torrent\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["create", "album", "-o", name, "-f"]) == 0
    assert capfdbinary.readouterr().out == "x\ufffd[31m\ufffd.torrent\n".encode()


def test_quiet(album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The path, and not a word more."""
    assert main(["create", "album", "-q", "-e", "nope"]) == 0
    assert capsys.readouterr() == ("album.torrent\n", "")


def test_verbose_names_what_is_left_out(album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each."""
    assert main(["create", "album", "-v"]) == 0
    assert "left out: link: symbolic link\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["note: no tracker"]),
        (["-p"], ["warning: private and without a tracker"]),
        (["-p", "-t", "http://1/a"], []),
    ],
)
def test_a_torrent_without_peers_is_told(
    words: list[str], expected: list[str], album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Especially a private one, which no DHT may help."""
    assert main(["create", "album", *words]) == 0
    advice = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("note:", "warning:"))]
    assert [line[: len(start)] for line, start in zip(advice, expected, strict=True)] == expected


def test_names_that_clients_change_are_told(album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They could not be seeded from where they are, so that seeding is not proposed."""
    (album / "what?\x1b[31m").write_bytes(b"x")
    assert main(["create", "album"]) == 0
    text = capsys.readouterr().err
    assert "warning: 1 name(s) are not safe on every system" in text
    assert r"'album/what?\x1b[31m' is saved as 'album/what__[31m'" in text
    assert "seed it" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("path", "directory"),
    [("album", "."), ("album/disc 1", "album"), ("album/disc 1/../..", "{parent}"), (".", "{parent}")],
)
def test_how_to_seed_it(path: str, directory: str, album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command finds the files where they are: it verifies them as complete."""
    assert main(["create", path, "-o", "x y.torrent"]) == 0
    expected = directory.format(parent=album.parent.parent)
    assert f"seed it:   python main.py 'x y.torrent' -o {expected} --seed\n" in capsys.readouterr().err
    assert main(["verify", "x y.torrent", "-o", expected, "--state-dir", str(album.parent.parent / "state")]) == 0


class Terminal(io.StringIO):
    """Where somebody looks."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.parametrize(("words", "shown"), [([], True), (["--json"], True), (["-q"], False), (["-v"], False)])
def test_progress_is_for_people(
    words: list[str], shown: bool, album: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is drawn on a terminal and nowhere else, and never on standard output."""
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        assert main(["create", "album", *words]) == 0
    assert ("hashing" in terminal.getvalue()) == shown
    assert ("100 %" in terminal.getvalue()) == shown
    assert "hashing" not in capsys.readouterr().out


def test_no_progress_in_a_log(album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no terminal gets the summary alone."""
    assert main(["create", "album"]) == 0
    assert "hashing" not in capsys.readouterr().err


# --- where it writes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "expected"), [("x", "x"), ("out", "out/album.torrent"), ("out/y.torrent", "out/y.torrent")]
)
def test_output_is_a_file_or_a_directory(output: str, expected: str, album: Path) -> None:
    """In a directory the torrent gets its own name, as a download's `-o` is one."""
    Path("out").mkdir()
    assert main(["create", "album", "-o", output]) == 0
    assert written(Path(expected)).name == "album"


def test_nothing_is_overwritten_without_force(album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Code 1, before anything is hashed."""
    Path("album.torrent").write_bytes(b"old")
    assert main(["create", "album"]) == 1
    assert capsys.readouterr() == ("", "error: album.torrent is there already; --force overwrites it\n")
    assert Path("album.torrent").read_bytes() == b"old"
    assert main(["create", "album", "--force"]) == 0
    assert written(Path("album.torrent")).name == "album"


def test_nothing_is_overwritten_that_came_meanwhile(
    album: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hashing may take an hour, in which somebody else makes the file."""

    def and_meanwhile(*arguments: object, **options: object) -> bytes:
        Path("album.torrent").write_bytes(b"theirs")
        return torrent_creator.create_torrent(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(create_module, "create_torrent", and_meanwhile)
    assert main(["create", "album"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert Path("album.torrent").read_bytes() == b"theirs"


@pytest.mark.parametrize(("path", "output"), [("album", "album/notes~"), ("album/notes~", "album/notes~")])
def test_what_is_shared_is_never_overwritten(
    path: str, output: str, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even by force, and not through a link either."""
    Path("alias").symlink_to(output)
    for place in (output, "alias"):
        assert main(["create", path, "-o", place, "--force"]) == 1
        assert "is one of the files to share" in capsys.readouterr().err
    assert (album / "notes~").read_bytes() == b"backup"


def test_a_link_is_written_through(album: Path) -> None:
    """What it leads to is replaced, and not the link."""
    Path("real.torrent").write_bytes(b"old")
    Path("x.torrent").symlink_to("real.torrent")
    assert main(["create", "album", "-o", "x.torrent"]) == 1
    assert main(["create", "album", "-o", "x.torrent", "--force"]) == 0
    assert Path("x.torrent").is_symlink()
    assert written(Path("real.torrent")).name == "album"


def test_only_regular_files_are_overwritten(album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Renaming something over /dev/null would harm the whole system."""
    os.mkfifo("pipe")
    assert main(["create", "album", "-o", "pipe", "--force"]) == 1
    assert "pipe is there already and is no regular file" in capsys.readouterr().err
    assert Path("pipe").is_fifo()


@pytest.mark.parametrize(("output", "message"), [("no/x", "No such file"), ("album/notes~/x", "Not a directory")])
def test_a_place_that_does_not_exist(
    output: str, message: str, album: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code 4, and nothing was hashed for it."""
    monkeypatch.setattr(create_module, "create_torrent", never)
    assert main(["create", "album", "-o", output]) == 4
    assert f"error: cannot write {output}: {message}" in capsys.readouterr().err


def never(*_arguments: object, **_options: object) -> NoReturn:
    """Be called by nobody."""
    raise AssertionError


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_no_half_file(
    call: str, album: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old torrent stays whole, and nothing lies beside it."""
    Path("album.torrent").write_bytes(b"old")

    def full(*_arguments: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    assert main(["create", "album", "--force"]) == 4
    assert "error: cannot write album.torrent: No space left on device" in capsys.readouterr().err
    assert sorted(os.listdir()) == ["album", "album.torrent"]
    assert Path("album.torrent").read_bytes() == b"old"


def test_others_may_read_it(album: Path) -> None:
    """As the umask says, and not as for secret temporary files: it may go to a web server."""
    before = os.umask(0o022)
    try:
        assert main(["create", "album"]) == 0
    finally:
        os.umask(before)
    assert Path("album.torrent").stat().st_mode & 0o777 == 0o644


# --- how it ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("missing", 4, "cannot read missing: No such file or directory"),
        ("empty", 3, "there is nothing to share in empty: no file with a byte in it"),
        ("/", 3, "/ has no name that a torrent could have"),
        ("/dev/null", 3, "/dev/null is neither a file nor a directory"),
    ],
)
def test_what_cannot_be_shared(path: str, code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence and a code."""
    Path("empty").mkdir()
    assert main(["create", path]) == code
    assert capsys.readouterr() == ("", f"error: {message}\n")
    assert os.listdir() == ["empty"]


def test_ctrl_c_and_sigterm_in_process(
    album: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both end it with a word, and the handler that was there before comes back."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(create_module, "create_torrent", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert main(["create", "album"]) == 130
    monkeypatch.setattr(create_module, "create_torrent", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as raised:
        main(["create", "album"])
    assert raised.value.code == 143
    assert capsys.readouterr().err.count("stopped: no torrent was written\n") == 2
    assert signal.getsignal(signal.SIGTERM) is before
    assert os.listdir() == ["album"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_hashing_at_once(number: signal.Signals, code: int, place: Path, tmp_path: Path) -> None:
    """In a process of its own, in the middle of a large file."""
    huge = place / "huge"
    with huge.open("wb") as file:
        file.truncate(HUGE)
    log = tmp_path / "log"
    with running([sys.executable, MAIN, "create", "huge"], log, cwd=place) as process:
        hashing = psutil.Process(process.pid)
        wait_until(lambda: str(huge) in [file.path for file in hashing.open_files()], what="hashing")
        process.send_signal(number)
        assert process.wait(STOP_TIMEOUT) == code
    assert tail(log) == "stopped: no torrent was written"
    assert os.listdir(place) == ["huge"]
