"""The command line: what it takes, what it prints where, and its exit codes."""

import argparse
import io
import json
import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_peer import (
    LOOPBACK,
    PIECE_LENGTH,
    FakePeer,
    FakeServer,
    block_of,
    closed_port,
    greet,
    metainfo,
    seeder,
    torrent_of,
)
from tests.support import payload, wait_until
from torrent_client import __version__
from torrent_client.cli.arguments import COMMANDS, parse
from torrent_client.cli.exit_codes import ExitCode, exit_code
from torrent_client.cli.get import Interruption
from torrent_client.cli.kinds import parse_peer, parse_rate
from torrent_client.cli.main import main
from torrent_client.errors import DownloadStalled, MetainfoError, PeerError, StorageError, TorrentError, TrackerError
from torrent_client.piece_manager import PieceManager
from torrent_client.protocol.messages import Request, Unchoke
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress

MAIN = Path(__file__).parent.parent / "main.py"
DATA = payload(3 * PIECE_LENGTH + 100)
TORRENT = torrent_of(DATA)


class Place:
    """A directory with a torrent in it, where commands are run.

    Attributes:
        torrent: the path of the .torrent.
        output: the output directory, which does not exist at first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.torrent = folder / "a.torrent"
        self.torrent.write_bytes(metainfo(DATA))
        self.output = folder / "out"

    @property
    def file(self) -> Path:
        """The file that the torrent is of."""
        return self.output / "file.bin"

    def put(self, data: bytes = DATA) -> None:
        """Put the file on disk."""
        self.output.mkdir(exist_ok=True)
        self.file.write_bytes(data)

    def get(self, *options: str) -> int:
        """Download."""
        return main([str(self.torrent), *self.options, "--port", "0", *options])

    def verify(self, *options: str) -> int:
        """Verify."""
        return main(["verify", str(self.torrent), *self.options, *options])

    @property
    def options(self) -> list[str]:
        """The options that keep a command within this directory."""
        return ["-o", str(self.output), "--state-dir", str(self.folder / "state")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Return an empty place with a torrent, and give the log and its files back afterwards."""
    log = logging.getLogger("torrent_client")
    level, handlers = log.level, list(log.handlers)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "*")
    yield Place(tmp_path)
    for handler in log.handlers:
        if handler not in handlers:
            handler.close()
    log.setLevel(level)
    log.handlers = handlers


Captured = pytest.CaptureFixture[str]


def usage_error(capsys: Captured, *arguments: str) -> str:
    """Return what is said about a wrong command line, which ends the program with code 2."""
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == ExitCode.USAGE
    output = capsys.readouterr()
    assert output.out == ""
    return output.err


def json_lines(capsys: Captured) -> list[dict[str, Any]]:
    """Return the objects on standard output, which holds nothing else."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# --- info -------------------------------------------------------------------------------------------------


def test_info_prints_exactly_what_coursework_checks(place: Place, capsys: Captured) -> None:
    """These lines, in this order, and nothing else on standard output; the rest is for people."""
    place.torrent.write_bytes(metainfo(DATA, announce="http://tracker.example/announce"))
    torrent = TorrentFile.from_file(place.torrent)
    assert main(["info", str(place.torrent)]) == 0
    output = capsys.readouterr()
    hashes = [torrent.piece_hashes[start : start + 20].hex() for start in range(0, 80, 20)]
    assert output.out.splitlines() == [
        "Tracker URL: http://tracker.example/announce",
        f"Length: {len(DATA)}",
        f"Info Hash: {torrent.info_hash.hex()}",
        f"Piece Length: {PIECE_LENGTH}",
        "Piece Hashes:",
        *hashes,
    ]
    assert "name:     file.bin" in output.err
    assert "file.bin" in output.err


def test_info_tells_everything_that_a_torrent_says(place: Place, capsys: Captured) -> None:
    """For people, on standard error: tiers, files, comment, maker, date, and names that had to be changed."""
    content = {f"f{number}": b"x" for number in range(25)} | {"a?": b"y"}
    fields: dict[str, Any] = {
        "comment": "Hello\x1b[2J",
        "announce-list": [["http://one/announce", "http://two/announce"], ["http://three/announce"]],
        "created by": "mktorrent",
        "creation date": 1_700_000_000,
        "url-list": ["http://mirror/"],
    }
    place.torrent.write_bytes(metainfo(content, name="folder", **fields))
    assert main(["info", str(place.torrent)]) == 0
    told = capsys.readouterr().err
    for line in (
        "tier 1:   http://one/announce, http://two/announce",
        "tier 2:   http://three/announce",
        "made by:  mktorrent",
        "made on:  2023-11-14 22:13 UTC",
        "web seeds: http://mirror/",
        "files:    26",
        "  and 6 more",
        "'folder/a?' is saved as 'folder/a_'",
    ):
        assert line in told
    assert "\x1b" not in told


def test_info_can_be_quiet(place: Place, capsys: Captured) -> None:
    """Then nothing comes on standard error."""
    assert main(["info", str(place.torrent), "-q"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out.startswith("Tracker URL: \nLength: ")


def test_info_as_json_is_one_object(place: Place, capsys: Captured) -> None:
    """With all the facts."""
    place.torrent.write_bytes(metainfo({"a": b"x", "b/c": b"yz"}, name="folder", nodes=[["router", 1]]))
    assert main(["info", str(place.torrent), "--json"]) == 0
    (facts,) = json_lines(capsys)
    assert facts["info_hash"] == TorrentFile.from_file(place.torrent).info_hash.hex()
    assert (facts["name"], facts["length"], facts["pieces"]) == ("folder", 3, 1)
    assert facts["nodes"] == [["router", 1]]
    assert facts["files"] == [
        {"path": "folder/a", "length": 1, "padding": False},
        {"path": "folder/b/c", "length": 2, "padding": False},
    ]


@pytest.mark.parametrize("command", [["info"], ["verify"], []])
@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"nonsense", "not a .torrent file"), (b"", "not a .torrent file")],
)
def test_a_bad_torrent_is_told_and_has_its_code(
    place: Place, capsys: Captured, command: list[str], content: bytes | None, reason: str
) -> None:
    """Which file and why, in one sentence, without a traceback."""
    if content is None:
        place.torrent.unlink()
    else:
        place.torrent.write_bytes(content)
    assert main([*command, str(place.torrent)]) == ExitCode.BAD_TORRENT
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("error: ")
    assert "a.torrent" in line
    assert reason in line


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("command", [["info"], ["verify"], ["seed", "--data", "."]])
def test_a_command_that_needs_a_file_says_so_of_a_link(capsys: Captured, command: list[str]) -> None:
    """And how to come by one; not that there is no such file."""
    assert main([*command, f"magnet:?xt=urn:btih:{TORRENT.info_hash.hex()}"]) == ExitCode.BAD_TORRENT
    assert "--metadata-only makes one of a magnet link" in capsys.readouterr().err


def test_of_a_torrent_file_the_metadata_alone_is_there(place: Place, capsys: Captured) -> None:
    """Nothing is downloaded, since that is what the option says."""
    assert place.get("--metadata-only") == 0
    assert "a .torrent file has the metadata already" in capsys.readouterr().err
    assert not place.output.exists()


def test_a_warning_goes_where_standard_error_is_at_the_moment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture in place takes standard error over, so that lines go above it; past it they would tear it apart."""
    assert main(["info", str(place.torrent)]) == 0
    taken_over = io.StringIO()
    monkeypatch.setattr(sys, "stderr", taken_over)
    logging.getLogger("torrent_client.anything").warning("the tracker is down")
    assert taken_over.getvalue() == "WARNING: the tracker is down\n"


def test_an_interruption_in_the_first_moments_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """While modules are still loaded, nobody has asked for signals yet."""

    def run() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("torrent_client.cli.main.run", run)
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(MAIN))
    assert ending.value.code == ExitCode.INTERRUPTED


# --- downloading ------------------------------------------------------------------------------------------


def test_a_download_ends_with_the_file_and_code_0(place: Place, capsys: Captured) -> None:
    """From a peer that the user named; standard output stays empty, people are told where the file is."""
    with FakeServer(seeder(TORRENT, DATA)) as server:
        assert place.get("--peer", str(server.address)) == 0
    assert place.file.read_bytes() == DATA
    output = capsys.readouterr()
    assert output.out == ""
    assert f"complete: {place.file}, every piece verified, 96.1 KiB in " in output.err


def test_what_is_there_already_is_told_so(place: Place, capsys: Captured) -> None:
    """The same command again says that there is nothing to do."""
    place.put()
    assert place.get() == 0
    assert f"complete: {place.file} was there already, all 4 pieces are good" in capsys.readouterr().err


def test_a_quiet_download_prints_nothing(place: Place, capsys: Captured) -> None:
    """Unless something is wrong."""
    place.put()
    assert place.get("--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_a_quiet_download_loads_nothing_heavy_that_it_does_not_use(place: Place) -> None:
    """Not what HTTP, pictures, ciphers and proxies take; nor what builds dataclasses, half as much as all of ours."""
    heavy = {"cryptography", "dataclasses", "inspect", "miniupnpc", "platformdirs", "requests", "rich", "socks", "ssl"}
    program = (
        "import sys; from torrent_client.cli.main import main\n"
        "code = main(sys.argv[1:]); print(*sys.modules, sep='\\n'); sys.exit(code)"
    )
    alone = ["--no-dht", "--no-lsd", "--no-portmap", "--port", "0", "--quiet"]
    with FakeServer(seeder(TORRENT, DATA)) as server:
        command = [sys.executable, "-c", program, place.torrent, *place.options, *alone, "--peer", str(server.address)]
        run = subprocess.run(command, cwd=MAIN.parent, check=True, capture_output=True, text=True)
    assert place.file.read_bytes() == DATA
    assert "torrent_client.download_manager" in run.stdout
    assert heavy & set(run.stdout.split()) == set()


def test_json_lines_can_be_parsed(place: Place, capsys: Captured) -> None:
    """Standard output holds an object a line: progress, and in the end what happened."""
    with FakeServer(seeder(TORRENT, DATA)) as server:
        assert place.get("--json", "--peer", str(server.address)) == 0
    lines = json_lines(capsys)
    assert {line["type"] for line in lines[:-1]} <= {"progress"}
    last = lines[-1]
    assert (last["type"], last["state"]) == ("complete", "complete")
    assert (last["bytes_done"], last["size"]) == (len(DATA), len(DATA))
    assert (last["pieces_done"], last["pieces_total"], last["error"], last["downloaded"]) == (4, 4, None, len(DATA))


def test_a_disk_error_has_its_code(place: Place, capsys: Captured) -> None:
    """And a sentence; in JSON it is the last line."""
    place.output.write_text("in the way")
    assert place.get("--json") == ExitCode.STORAGE
    output = capsys.readouterr()
    assert "error: " in output.err
    last = json.loads(output.out.splitlines()[-1])
    assert (last["type"], last["state"]) == ("error", "error")
    assert "is a file, and no directory; choose a directory with -o" in last["error"]
    assert place.output.read_text() == "in the way"


def test_a_download_that_gets_nothing_gives_up_with_its_code(place: Place, capsys: Captured) -> None:
    """After --stop-timeout, with the reason."""
    peer = f"{LOOPBACK}:{closed_port()}"
    assert place.get("--stop-timeout", "1", "--peer", peer) == ExitCode.STALLED
    assert "error: nothing came for 1 s: none of 1 known peer could be reached" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_saves_and_has_its_code(place: Place, capsys: Captured, number: int, code: int) -> None:
    """In the middle of a download; the same command then goes on where it stopped."""
    served = threading.Event()

    def script(peer: FakePeer) -> None:
        greet(peer, TORRENT, pieces=[2])
        seeder_of_one(peer)
        served.set()
        peer.read_until_gone()

    def interrupt() -> None:
        wait_until(served.is_set)
        wait_until(lambda: place.file.exists() and place.file.read_bytes()[2 * PIECE_LENGTH] != 0)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with FakeServer(script) as server:
        thread = threading.Thread(target=interrupt)
        thread.start()
        assert place.get("--peer", str(server.address)) == code
        thread.join()
    assert "stopped at 1 of 4 pieces" in capsys.readouterr().err
    assert signal.getsignal(number) is before
    with FakeServer(seeder(TORRENT, DATA)) as server:
        assert place.get("--peer", str(server.address)) == 0
    assert {request.piece_index for request in server.requests} == {0, 1, 3}


def seeder_of_one(peer: FakePeer) -> None:
    """Serve the two blocks of piece 2."""
    peer.send(Unchoke())
    for request in peer.expect_many(Request, 2):
        peer.send(block_of(TORRENT, DATA, request))


def test_a_second_signal_ends_the_program_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever still hangs then."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    interruption = Interruption()
    with interruption.handled():
        signal.raise_signal(signal.SIGINT)
        assert interruption.signal == signal.SIGINT
        assert codes == []
        signal.raise_signal(signal.SIGTERM)
    assert codes == [143]


def test_state_lies_in_the_usual_place(place: Place) -> None:
    """Unless the user says otherwise: nothing is littered beside the downloads."""
    place.put()
    assert main([str(place.torrent), "-o", str(place.output), "--port", "0"]) == 0
    assert len(list((place.folder / "home").rglob("*.json"))) == 1
    assert [path.name for path in place.output.iterdir()] == ["file.bin"]


# --- verify -----------------------------------------------------------------------------------------------


def test_verify_says_that_all_is_good(place: Place, capsys: Captured) -> None:
    """On standard output, with code 0."""
    place.put()
    assert place.verify() == 0
    assert capsys.readouterr().out == "file.bin: 4 of 4 pieces are good, 96.1 KiB of 96.1 KiB\n"


def test_verify_names_bad_pieces(place: Place, capsys: Captured) -> None:
    """With code 6."""
    place.put(DATA[:PIECE_LENGTH] + bytes(2 * PIECE_LENGTH) + DATA[3 * PIECE_LENGTH :])
    assert place.verify() == ExitCode.INCOMPLETE
    assert capsys.readouterr().out.splitlines() == [
        "file.bin: 2 of 4 pieces are good, 32.1 KiB of 96.1 KiB",
        "missing or bad: 1-2",
    ]


def test_verify_says_when_nothing_is_there(place: Place, capsys: Captured) -> None:
    """Perhaps the directory is another."""
    assert place.verify() == ExitCode.INCOMPLETE
    assert f"none of the torrent's files is in {place.output}: -o says where they are" in capsys.readouterr().err


def test_verify_as_json_is_one_object(place: Place, capsys: Captured) -> None:
    """Where nothing was downloaded yet, too."""
    assert place.verify("--json") == ExitCode.INCOMPLETE
    (line,) = json_lines(capsys)
    assert line == {
        "type": "verified",
        "pieces_total": 4,
        "pieces_done": 0,
        "bytes_done": 0,
        "size": len(DATA),
        "missing": "0-3",
    }
    assert not place.output.exists()


def test_verify_can_be_quiet(place: Place, capsys: Captured) -> None:
    """The code says it all."""
    place.put(DATA[:-1])
    assert place.verify("-q") == ExitCode.INCOMPLETE
    assert capsys.readouterr() == ("", "")


def test_verify_repairs_the_state(place: Place) -> None:
    """A file changed behind our back, with its time set back: `verify` finds out, and only the bad piece is got."""
    with FakeServer(seeder(TORRENT, DATA)) as server:
        assert place.get("--peer", str(server.address)) == 0
    times = place.file.stat()
    with place.file.open("r+b") as file:
        file.seek(PIECE_LENGTH)
        file.write(bytes([DATA[PIECE_LENGTH] ^ 1]))
    os.utime(place.file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert place.get() == 0  # believed, and wrong
    assert place.file.read_bytes() != DATA
    assert place.verify() == ExitCode.INCOMPLETE
    with FakeServer(seeder(TORRENT, DATA)) as server:
        assert place.get("--peer", str(server.address)) == 0
    assert {request.piece_index for request in server.requests} == {1}
    assert place.file.read_bytes() == DATA


def test_verify_adopts_files_of_other_programs(place: Place) -> None:
    """What it found good need not be hashed again."""
    place.put()
    assert place.verify() == 0
    (state,) = (place.folder / "state").glob("*.json")
    assert json.loads(state.read_text())["completed"] == "0-3"


def test_verify_can_be_interrupted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the signal's code, and the state as it was."""

    def interrupting(*_arguments: object) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return True

    place.put()
    monkeypatch.setattr(PieceManager, "verify_piece", interrupting)
    monkeypatch.setattr(os, "_exit", lambda _code: None)  # a second signal is as good
    assert place.verify() == ExitCode.INTERRUPTED
    assert not (place.folder / "state").exists()


# --- usage ------------------------------------------------------------------------------------------------


def test_without_arguments_the_help_is_printed(capsys: Captured) -> None:
    """On standard error, with the code of wrong usage."""
    told = usage_error(capsys)
    assert "python main.py FILE.torrent" in told


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_mentions_the_main_things(capsys: Captured, arguments: list[str]) -> None:
    """Every command, how to go on after Ctrl-C, and the exit codes."""
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 0
    told = capsys.readouterr().out
    for command in COMMANDS:
        assert command in told
    for fact in ("Ctrl-C", "exit codes", "the same command again goes on"):
        assert fact in told


def test_help_for_a_download_has_every_option(capsys: Captured) -> None:
    """With its default."""
    with pytest.raises(SystemExit):
        main(["get", "--help"])
    told = capsys.readouterr().out
    for option in ("--output", "--peer", "--port", "--max-peers", "--sequential", "--seed", "--stop-timeout", "--json"):
        assert option in told
    assert "default: 6881" in told


def test_the_version_is_told(capsys: Captured) -> None:
    """As `--version`."""
    with pytest.raises(SystemExit) as ending:
        main(["--version"])
    assert ending.value.code == 0
    assert capsys.readouterr().out == f"torrent-client {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a.torrent", "--nonsense"], "--nonsense"),
        (["a.torrent", "--port", "65536"], "65536 is not a port"),
        (["a.torrent", "--port", "-1"], "-1 is not a port"),
        (["a.torrent", "--port", "http"], "'http' is not a whole number"),
        (["a.torrent", "--max-peers", "0"], "0 is not between 1 and 10000"),
        (["a.torrent", "--stop-timeout", "soon"], "'soon' is not a whole number"),
        (["a.torrent", "--peer", "nobody"], "'nobody' is not HOST:PORT"),
        (["a.torrent", "--max-upload-rate", "fast"], "'fast' is not a rate"),
        (["get"], "FILE.torrent"),
        (["info"], "FILE.torrent"),
        (["verify"], "FILE.torrent"),
        (["completion", "powershell"], "powershell"),
        (["demo", "--size", "0"], "0 is not between"),
    ],
)
def test_wrong_usage_is_told(capsys: Captured, arguments: list[str], reason: str) -> None:
    """What is wrong, on standard error, with code 2."""
    assert reason in usage_error(capsys, *arguments)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.7:6881", "192.0.2.7", 6881),
        ("peer.example:1", "peer.example", 1),
        ("[2001:db8::7]:65535", "2001:db8::7", 65535),
        ("2001:db8::7:65535", "2001:db8::7", 65535),
    ],
)
def test_peers_are_named_as_usual(text: str, host: str, port: int) -> None:
    """Name or address, and port."""
    assert parse_peer(text) == PeerAddress(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "host",
        "host:",
        ":80",
        "host:0",
        "host:65536",
        "host:x",
        "host:-1",
        "host:\uff11",
        "[host]:80",
        "a:b:80",
    ],
)
def test_what_is_no_peer_is_refused(text: str) -> None:
    """No host, no port, a port that cannot be, digits that are none, brackets around no IPv6 address."""
    with pytest.raises(argparse.ArgumentTypeError):
        parse_peer(text)


@pytest.mark.parametrize(
    ("text", "rate"), [("0", 0), ("2048", 2048), ("500K", 512_000), ("1.5m", 1.5 * 2**20), (" 1G ", 2**30)]
)
def test_rates_have_units(text: str, rate: float) -> None:
    """K, M and G are powers of 1,024."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "K", "-1", "1T", "1 K", "1e6", "100", "0.5K", "nan"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    """Nor one at which nothing would work."""
    with pytest.raises(argparse.ArgumentTypeError):
        parse_rate(text)


def test_a_torrent_may_be_called_like_an_option_of_another_command() -> None:
    """Only the first word can be a command."""
    assert parse(["x.torrent"]).command == "get"
    assert parse(["info", "verify"]).command == "info"


# --- exit codes, logs, shells -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MetainfoError("x"), 3),
        (StorageError("x"), 4),
        (DownloadStalled("x"), 5),
        (TrackerError("x"), 1),
        (PeerError("x"), 1),
        (TorrentError("x"), 1),
    ],
)
def test_each_kind_of_error_has_its_code(error: TorrentError, code: int) -> None:
    """Scripts depend on them."""
    assert exit_code(error) == code


def test_an_error_cannot_write_to_the_terminal(place: Place, capsys: Captured) -> None:
    """Not even when the user names a file that an attacker has named."""
    assert main(["info", "\x1b[2J.torrent"]) == ExitCode.BAD_TORRENT
    assert "\x1b" not in capsys.readouterr().err


def test_the_log_goes_to_a_file(place: Place, capsys: Captured) -> None:
    """In detail with -v, appended; the console stays as it is."""
    log = place.folder / "log"
    log.write_text("before\n")
    place.put()
    assert place.get("-q", "-v", "--log-file", str(log)) == 0
    lines = log.read_text().splitlines()
    assert lines[0] == "before"
    assert any("checking 4 pieces on disk" in line for line in lines)
    assert capsys.readouterr().err == ""


def test_a_log_that_cannot_be_written_is_told(place: Place, capsys: Captured) -> None:
    """Before anything else happens."""
    place.put()
    assert place.get("--log-file", str(place.folder / "no" / "log")) == ExitCode.ERROR
    assert "cannot write the log to" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_scripts_are_printed(place: Place, capsys: Captured, shell: str) -> None:
    """With the commands and options in them."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("info", "verify", "sequential"):
        assert word in script


def test_the_bash_script_is_bash(place: Place) -> None:
    """It is read by the shell itself without a complaint."""
    script = subprocess.run([sys.executable, MAIN, "completion", "bash"], check=True, capture_output=True).stdout
    checked = subprocess.run(["bash", "-n"], input=script, check=False, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, b"")


# --- the program ------------------------------------------------------------------------------------------


def test_the_program_runs_from_anywhere(place: Place) -> None:
    """`python path/to/main.py`, with the exit code of the command."""
    run = subprocess.run([sys.executable, MAIN, "info", "missing"], check=False, capture_output=True, text=True)
    assert run.returncode == ExitCode.BAD_TORRENT
    assert run.stderr == "error: cannot read missing: No such file or directory\n"


def test_a_mistyped_command_is_taken_for_one(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """To the program it is a file that is not there."""
    assert main(["verfy", *place.options]) == ExitCode.BAD_TORRENT
    assert "cannot read verfy: No such file or directory; nor is there such a command" in capsys.readouterr().err


def test_a_reader_that_has_had_enough_is_no_error(place: Place) -> None:
    """As in `info FILE | head -1`: no traceback, code 0."""
    place.torrent.write_bytes(metainfo(payload(20_000), piece_length=1))
    with subprocess.Popen(
        [sys.executable, MAIN, "info", place.torrent], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(10) == 0
