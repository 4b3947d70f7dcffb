"""The command line's grammar.

`python main.py FILE.torrent` downloads; the other commands have names. To argparse a download is a command
like the others, `get`, which `parse` puts in where no command is named.

Spec: none.
Thread: main.
Lock: none.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from torrent_client import __version__
from torrent_client.cli import kinds
from torrent_client.config import MIB, Config

if TYPE_CHECKING:
    _Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

DEFAULT_COMMAND = "get"
MAGNET_MILESTONES = ("magnet_parse", "magnet_handshake", "magnet_info", "magnet_download_piece", "magnet_download")
MILESTONES = ("decode", "peers", "handshake", "download_piece", "download", *MAGNET_MILESTONES)
BEHAVIOURS = ("good", "corrupt", "stall", "choke", "slow", "liar", "flood", "garbage", "silent", "impostor")

DESCRIPTION = """\
A BitTorrent client in Python.

  python main.py FILE.torrent ...      download into the current directory; Ctrl-C stops,
                                       the same command again goes on where it stopped
  python main.py 'magnet:?xt=...'      the same with a magnet link, in quotes
  python main.py seed FILE.torrent     send what is on disk to others
  python main.py demo                  watch a download without a torrent or the internet
  python main.py info FILE.torrent     show what is in a torrent
  python main.py verify FILE.torrent   check the files on disk against the torrent
  python main.py create PATH           make a torrent of a file or a directory
  python main.py scrape FILE.torrent   show how many peers its trackers know
  python main.py dht HASH              look up a torrent's peers in the DHT, step by step
  python main.py doctor FILE.torrent   say why a download does not begin
  python main.py peer FILE.torrent     a seeder that misbehaves, for lessons: --behave list
  python main.py trace FILE.jsonl      draw what --trace-file kept, as a sequence of messages
  python main.py completion bash       print a completion script for the shell

  python main.py get --help            all options of a download

for coursework: check leads through the guide's tasks (check --student DIR); and one step at a time
decode, info, peers, handshake, download_piece, download, magnet_parse, magnet_handshake, magnet_info,
magnet_download_piece, magnet_download
"""

EPILOG = """\
exit codes: 0 complete; 1 error; 2 wrong usage; 3 bad torrent; 4 disk; 5 nothing came for
--stop-timeout; 6 verify or seed found missing or bad pieces; 130 Ctrl-C; 143 SIGTERM;
with several torrents that of the first error
"""

CREATE_DESCRIPTION = """\
Make a torrent of a file, or of a directory with everything below it.

In it: every file, also hidden ones (.git, .DS_Store), empty ones and editors' backups (notes.txt~).
Not in it: symbolic links, pipes and other special files, empty directories, what --exclude names,
and the .torrent itself if it lies in the directory.

The path of the torrent goes to standard output, or with --json one object: path, info_hash, magnet, pieces,
piece_length, size, files. The same files and settings give the same info hash always, which is also that
of mktorrent and libtorrent (except that these follow links).
"""

CREATE_EPILOG = """\
examples:
  python main.py create album --tracker http://tracker.example/announce
  python main.py create src -e .git -e '*~' -o ~/src.torrent --piece-size 1M

exit codes: 0 made; 1 error, such as a torrent that is there already; 2 wrong usage; 3 nothing to make
a torrent of; 4 a file cannot be read, or the torrent not written; 130 Ctrl-C; 143 SIGTERM
"""


DOCTOR_DESCRIPTION = """\
Say why a download does not begin.

Looks at the torrent, the disk, the port and the router, the proxy, each tracker, the DHT, the local network,
web seeds, and calls peers, for some 20 seconds; says of each what came of it and what to do about it. Nothing is
written, and what is announced is taken back. The options are those of the download.
"""

DOCTOR_EPILOG = """\
exit codes: 0 a download would work; 3 bad torrent; 4 the disk; 5 nobody gives what is wanted;
2 wrong usage; 130 Ctrl-C; 143 SIGTERM
"""


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser.

    Args:
        command: the one that it has to know, which takes a third of the time; all of them by default.
    """
    parser = argparse.ArgumentParser(
        prog="python main.py",
        usage="python main.py [COMMAND] FILE.torrent [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"torrent-client {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", prog="python main.py")
    for names, add in _ADDERS.items():
        if command is None or command in names:
            add(commands)
    return parser


def _add_get(commands: "_Commands") -> None:
    get = commands.add_parser(
        DEFAULT_COMMAND,
        usage="python main.py FILE.torrent ... [options]",
        help="download; the default",
        description="Download a torrent, or several at once.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    get.add_argument(
        "torrent", type=kinds.not_empty, nargs="+", metavar="FILE.torrent", help="the torrents, or magnet links"
    )
    _add_download_options(get)


def _add_seed(commands: "_Commands") -> None:
    seed = commands.add_parser("seed", help="send what is on disk to others, until Ctrl-C or a goal")
    _add_torrent(seed)
    _add_seed_options(seed)


def _add_dht(commands: "_Commands") -> None:
    _add_dht_options(commands.add_parser("dht", help="look up a torrent's peers in the DHT, and show the way"))


def _add_info(commands: "_Commands") -> None:
    info = commands.add_parser("info", help="show what is in a torrent")
    _add_torrent(info)
    _add_output_options(info)


def _add_verify(commands: "_Commands") -> None:
    verify = commands.add_parser("verify", help="hash the files on disk again")
    _add_torrent(verify)
    _add_place(verify)
    _add_output_options(verify)


def _add_scrape(commands: "_Commands") -> None:
    _add_scrape_options(commands.add_parser("scrape", help="ask trackers how many peers they know"))


def _add_create(commands: "_Commands") -> None:
    create = commands.add_parser(
        "create",
        usage="python main.py create PATH [options]",
        help="make a torrent",
        description=CREATE_DESCRIPTION,
        epilog=CREATE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_create_options(create)


def _add_demo(commands: "_Commands") -> None:
    demo = commands.add_parser("demo", help="an offline swarm: one tracker, three seeders, one download")
    demo.add_argument(
        "--size", type=kinds.mebibytes, default=128 * MIB, metavar="MIB", help="MiB of made-up data (default: 128)"
    )
    demo.add_argument(
        "--rate",
        type=kinds.parse_rate,
        default=8 * MIB,
        metavar="RATE",
        help="bytes per second that each seeder gives, so that there is something to see; 0 for all (default: 8M)",
    )
    _add_output_options(demo)


def _add_completion(commands: "_Commands") -> None:
    completion = commands.add_parser("completion", help="print a completion script for the shell")
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def _add_check(commands: "_Commands") -> None:
    """Add the checker of the guide's tasks."""
    check = commands.add_parser("check", help="coursework: which of the guide's tasks are done, and what is next")
    check.add_argument("--student", type=kinds.path, metavar="DIR", help="your modules (default: this project's own)")
    check.add_argument("--task", type=int, choices=range(1, 18), metavar="N", help="this task only, 1 to 17")
    check.add_argument("--all", action="store_true", help="go on after a task that is not done")
    check.add_argument("--json", action="store_true", help="one JSON object for each task, for scripts")
    check.add_argument("-v", "--verbose", action="store_true", help="with tracebacks and what the code printed")


def _add_doctor(commands: "_Commands") -> None:
    """Add the doctor, which takes the options of a download that have a say in whether it begins."""
    doctor = commands.add_parser(
        "doctor",
        usage="python main.py doctor FILE.torrent [options]",
        help="say why a download does not begin",
        description=DOCTOR_DESCRIPTION,
        epilog=DOCTOR_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("torrent", type=kinds.not_empty, metavar="FILE.torrent", help="the torrent, or a magnet link")
    _add_place(doctor)
    peers = doctor.add_argument_group("peers")
    _add_meeting(peers)
    _add_connection_options(peers)
    _add_switches(peers)
    _add_web_seed(doctor)
    _add_output_options(doctor)
    _add_trace_options(doctor)
    doctor.set_defaults(max_peers=Config().max_peers, max_download_rate=0.0, max_upload_rate=0.0)


def _add_peer(commands: "_Commands") -> None:
    peer = commands.add_parser(
        "peer",
        help="a seeder that misbehaves, for lessons",
        description="Seed a torrent and misbehave in one way; `--behave list` tells which there are.",
    )
    peer.add_argument("torrent", type=kinds.path, nargs="?", metavar="FILE.torrent", help="the torrent")
    peer.add_argument("--data", type=kinds.path, metavar="PATH", help="the torrent's file or directory itself")
    peer.add_argument(
        "--behave", choices=(*BEHAVIOURS, "list"), default="good", help="in which way; list tells of each"
    )
    peer.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    peer.add_argument("--port", type=kinds.port, default=0, metavar="N", help="TCP port to listen on (default: any)")
    peer.add_argument("-q", "--quiet", action="store_true", help="print errors only")


def _add_trace(commands: "_Commands") -> None:
    trace = commands.add_parser("trace", help="draw what --trace-file kept")
    trace.add_argument("file", type=kinds.path, metavar="FILE.jsonl", help="the trace")
    trace.add_argument("--peer", metavar="HOST:PORT", help="what passed between us and this one alone")
    trace.add_argument("--lines", action="store_true", help="the messages with their bytes, as --trace does")


def _add_milestones(commands: "_Commands") -> None:
    """Add the coursework's commands; their names and arguments are those of the course."""
    decode = commands.add_parser("decode", help="coursework: print a bencoded value as JSON")
    decode.add_argument("value", metavar="VALUE", help="such as d3:foo3:bar5:helloi52ee")
    peers = commands.add_parser("peers", help="coursework: ask the tracker for peers")
    _add_torrent(peers)
    handshake = commands.add_parser("handshake", help="coursework: shake hands with a peer and print its id")
    _add_torrent(handshake)
    handshake.add_argument("peer", type=kinds.parse_peer, metavar="IP:PORT", help="the peer")
    piece = commands.add_parser("download_piece", help="coursework: download one piece into a file")
    _add_output_file(piece)
    _add_torrent(piece)
    piece.add_argument("index", type=kinds.whole, metavar="INDEX", help="the piece, from 0 on")
    download = commands.add_parser("download", help="coursework: download into a file, by BEP 3 alone")
    _add_output_file(download)
    _add_torrent(download)
    for name in MAGNET_MILESTONES:
        magnet = commands.add_parser(name, help="coursework: the same with a magnet link")
        if "download" in name:
            _add_output_file(magnet)
        magnet.add_argument("link", metavar="LINK", help="the magnet link; quote it, for it has & in it")
        if name == "magnet_download_piece":
            magnet.add_argument("index", type=kinds.whole, metavar="INDEX", help="the piece, from 0 on")


def _add_output_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=kinds.path,
        required=True,
        metavar="OUT",
        help="where it goes, a file; replaced if it exists",
    )


def _add_download_options(parser: argparse.ArgumentParser) -> None:
    """Add what a download can be told."""
    _add_place(parser)
    _add_peer_options(parser)
    _add_web_seed(parser)
    how = parser.add_argument_group("what to do")
    how.add_argument("--sequential", action="store_true", help="get the pieces in order, for playing while it comes")
    how.add_argument("--seed", action="store_true", help="go on sending to others when complete, until Ctrl-C")
    _add_goals(how)
    how.add_argument("--save-torrent", action="store_true", help="of a magnet link, write the .torrent file, too")
    how.add_argument("--metadata-only", action="store_true", help="of a magnet link, write the .torrent file alone")
    how.add_argument(
        "--stop-timeout",
        type=kinds.seconds,
        default=0.0,
        metavar="SECONDS",
        help="give up when nothing came for so long (default: never)",
    )
    _add_output_options(parser)
    _add_trace_options(parser)


def _add_web_seed(parser: argparse.ArgumentParser) -> None:
    web = parser.add_argument_group("web seeds")
    web.add_argument(
        "--web-seed",
        type=kinds.web_seed,
        action="append",
        default=[],
        metavar="URL",
        help="also download from this web server, which has the torrent's files; can be given several times",
    )


def _add_seed_options(parser: argparse.ArgumentParser) -> None:
    """Add what seeding can be told."""
    place = parser.add_argument_group("where")
    place.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="the torrent's file or directory itself, whatever it is called; it is only read",
    )
    _add_state_directory(place)
    _add_peer_options(parser)
    _add_goals(parser.add_argument_group("what to do"))
    _add_output_options(parser)
    _add_trace_options(parser)


def _add_goals(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--seed-ratio",
        type=kinds.above_zero,
        metavar="R",
        help="seed until R times the torrent's size was sent, in all runs together",
    )
    group.add_argument(
        "--seed-time",
        type=kinds.above_zero,
        metavar="MINUTES",
        help="seed for so long, unless --seed-ratio is reached before",
    )
    group.add_argument(
        "--super-seed",
        action="store_true",
        help="as the only seed: show each peer one piece at a time, so that each piece is sent once",
    )


def _add_peer_options(parser: argparse.ArgumentParser) -> None:
    """Add what concerns peers."""
    defaults = Config()
    peers = parser.add_argument_group("peers")
    _add_meeting(peers)
    peers.add_argument(
        "--max-peers",
        type=kinds.positive,
        default=defaults.max_peers,
        metavar="N",
        help=f"connections of a torrent at most (default: {defaults.max_peers})",
    )
    _add_connection_options(peers)
    _add_switches(peers)
    _add_limits(peers)
    files = parser.add_argument_group("which files")
    files.add_argument("-S", "--list-files", action="store_true", help="print number, size and path of each and exit")
    files.add_argument(
        "--select-file",
        type=kinds.select_file,
        default=(),
        metavar="N,N-N",
        help="download these files only, such as 1,3-5 (default: all)",
    )
    files.add_argument(
        "--file-priority",
        type=kinds.file_priority,
        default=(),
        metavar="N=PRIORITY",
        help="get files of high priority first and those of low last, such as 3=high,5-7=low (default: normal)",
    )
    files.add_argument(
        "--first-last",
        action="store_true",
        help="get the first and last piece of each file before the others, as --sequential does",
    )


def _add_meeting(peers: argparse._ArgumentGroup) -> None:
    """Add where we are found, and whom we find without being told."""
    defaults = Config()
    peers.add_argument(
        "--port",
        type=kinds.port,
        default=defaults.listen_port,
        metavar="N",
        help=f"TCP port to listen on; the next free one if taken; 0 for any (default: {defaults.listen_port})",
    )
    peers.add_argument(
        "--peer",
        type=kinds.parse_peer,
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="also ask this peer; can be given several times",
    )
    _add_tracker(peers)


def _add_connection_options(peers: argparse._ArgumentGroup) -> None:
    """Add how connections are made."""
    defaults = Config()
    peers.add_argument(
        "--encryption",
        choices=("allow", "prefer", "require", "off"),
        default=defaults.encryption,
        help="of connections to peers: only where they insist, first of all, always or never (default: allow)",
    )
    _add_proxy(peers)


def _add_scrape_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("torrent", nargs="+", metavar="FILE.torrent", help="torrents or magnet links")
    _add_tracker(parser)
    _add_proxy(parser)
    _add_output_options(parser)


def _add_tracker(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--tracker",
        type=kinds.parse_tier,
        action="append",
        default=[],
        metavar="URL",
        help="also ask this tracker, http, https or udp; can be given several times",
    )


def _add_proxy(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--proxy",
        type=kinds.proxy_url,
        metavar="URL",
        help="go through a proxy, such as socks5://user:password@host:1080, and never past it; http://host:8080 "
        "carries trackers and web seeds only (default: none, and http_proxy of the environment for these)",
    )


def _add_switches(group: argparse._ArgumentGroup) -> None:
    """Add what is on unless it is switched off."""
    group.add_argument("--no-portmap", action="store_true", help="do not ask the router to let peers in (UPnP)")
    group.add_argument("--no-pex", action="store_true", help="do not tell peers of each other, nor listen when they do")
    group.add_argument("--no-dht", action="store_true", help="take no part in the DHT, where peers find each other")
    _add_dht_bootstrap(group)
    group.add_argument("--no-lsd", action="store_true", help="do not look for peers on the local network")


def _add_dht_options(parser: argparse.ArgumentParser) -> None:
    """Add what a look-up in the DHT can be told."""
    parser.add_argument("target", metavar="HASH", help="an info hash, a .torrent file, or a magnet link")
    how = parser.add_argument_group("how")
    _add_dht_bootstrap(how)
    how.add_argument(
        "--announce",
        type=kinds.port,
        metavar="PORT",
        help="at the end, tell the nodes that a peer of this torrent listens here on this TCP port",
    )
    _add_state_directory(how)
    _add_output_options(parser)


def _add_dht_bootstrap(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--dht-bootstrap",
        type=kinds.parse_peer,
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="begin at this DHT node instead of the public routers; can be given several times",
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    for scope, whose in (("", "by all torrents together"), ("torrent-", "by each torrent")):
        for direction, verb in (("download", "taken"), ("upload", "given")):
            group.add_argument(
                f"--max-{scope}{direction}-rate",
                type=kinds.parse_rate,
                default=0.0,
                metavar="RATE",
                help=f"bytes per second {verb} at most {whose}, such as 500K or 2M (default: no limit)",
            )


def _add_create_options(parser: argparse.ArgumentParser) -> None:
    """Add what the making of a torrent can be told; short options are those of mktorrent."""
    parser.add_argument("path", type=kinds.path, metavar="PATH", help="the file or directory to share")
    parser.add_argument(
        "-o",
        "--output",
        type=kinds.path,
        metavar="FILE.torrent",
        help="where the torrent goes, a file or a directory (default: NAME.torrent here)",
    )
    parser.add_argument("-f", "--force", action="store_true", help="overwrite a torrent that is there already")
    what = parser.add_argument_group("what is shared")
    what.add_argument(
        "-e",
        "--exclude",
        action="append",
        default=[],
        metavar="GLOB",
        help="leave out files and directories of this name, such as '*~' or .git; with a slash, of this path "
        "below PATH, such as 'doc/*.tmp'; can be given several times",
    )
    what.add_argument(
        "--piece-size",
        type=kinds.parse_piece_size,
        metavar="SIZE",
        help="a power of two from 16K to 16M, such as 256K, or auto, by the size of it all (default: auto)",
    )
    where = parser.add_argument_group("where peers come from")
    where.add_argument(
        "-t",
        "--tracker",
        type=kinds.parse_tier,
        action="append",
        default=[],
        metavar="URL[,URL]",
        help="announce URL; given several times, each one is a tier, asked when those before it fail; "
        "URLs with a comma between them share a tier (-a and --announce are the same)",
    )
    where.add_argument(
        "-a", "--announce", dest="tracker", type=kinds.parse_tier, action="append", help=argparse.SUPPRESS
    )
    where.add_argument(
        "-w",
        "--web-seed",
        type=kinds.parse_web_seeds,
        action="extend",
        default=[],
        metavar="URL[,URL]",
        help="where the files can be had by HTTP; can be given several times",
    )
    where.add_argument("-p", "--private", action="store_true", help="allow peers of these trackers only")
    says = parser.add_argument_group("what else it says")
    says.add_argument("-c", "--comment", type=kinds.utf8, metavar="TEXT", help="a comment")
    says.add_argument("--source", type=kinds.utf8, metavar="TEXT", help="a site's mark; it changes the info hash")
    says.add_argument("-d", "--no-date", action="store_true", help="leave out when it was made")
    output = parser.add_argument_group("what to print")
    output.add_argument("--json", action="store_true", help="one JSON object on standard output, for scripts")
    output.add_argument("-q", "--quiet", action="store_true", help="no progress, summary and warnings")
    output.add_argument("-v", "--verbose", action="store_true", help="name everything that is left out")
    output.add_argument("--log-file", type=Path, metavar="FILE", help="append the log, in detail with -v, to a file")


_ADDERS: dict[tuple[str, ...], Callable[["_Commands"], None]] = {
    (DEFAULT_COMMAND,): _add_get,
    ("seed",): _add_seed,
    ("dht",): _add_dht,
    ("info",): _add_info,
    ("verify",): _add_verify,
    ("scrape",): _add_scrape,
    ("create",): _add_create,
    ("demo",): _add_demo,
    ("doctor",): _add_doctor,
    ("peer",): _add_peer,
    ("trace",): _add_trace,
    ("completion",): _add_completion,
    ("check",): _add_check,
    MILESTONES: _add_milestones,
}
"""What adds the commands of these names, in the order in which the help names them."""

COMMANDS = tuple(name for names in _ADDERS for name in names)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; exits with a message and code 2 if it is wrong."""
    words = list(arguments)
    if words and words[0] not in (*COMMANDS, "-h", "--help", "--version"):
        words.insert(0, DEFAULT_COMMAND)
    parser = build_parser(words[0] if words and words[0] in COMMANDS else None)
    if not words:
        parser.print_help(sys.stderr)
        parser.exit(2)
    options, rest = parser.parse_known_args(words)
    if options.command == DEFAULT_COMMAND and not any(word.startswith("-") for word in rest):
        options.torrent += [Path(word) for word in rest]  # torrents after an option, which argparse does not expect
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _add_torrent(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("torrent", type=Path, metavar="FILE.torrent", help="the torrent")


def _add_place(parser: argparse.ArgumentParser) -> None:
    place = parser.add_argument_group("where")
    place.add_argument(
        "-o", "--output", type=Path, default=Path(), metavar="DIR", help="where the files go (default: here)"
    )
    _add_state_directory(place)


def _add_state_directory(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="where to keep what is needed to go on later (default: the usual place for such files)",
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("what to print")
    output.add_argument("--json", action="store_true", help="one JSON object a line on standard output, for scripts")
    output.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    output.add_argument("-v", "--verbose", action="store_true", help="print what happens in detail")
    output.add_argument("--log-file", type=Path, metavar="FILE", help="append the log, in detail with -v, to a file")


def _add_trace_options(parser: argparse.ArgumentParser) -> None:
    trace = parser.add_argument_group("to watch the protocol")
    trace.add_argument("--trace", action="store_true", help="print every message that passes, with its bytes")
    trace.add_argument(
        "--trace-file", type=kinds.path, metavar="FILE.jsonl", help="keep the messages; `trace FILE.jsonl` draws them"
    )
    trace.add_argument(
        "--trace-pcap", type=kinds.path, metavar="FILE.pcap", help="write what passes as a capture that Wireshark opens"
    )
