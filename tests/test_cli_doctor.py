"""`doctor` from the command line, and whole examinations: what is printed, the verdict, the code, and nothing left."""

import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.fake_peer import LOOPBACK, FakePeer, FakeServer, closed_port, greet, metainfo, seeder, serving, torrent_of
from tests.fake_proxy import SocksProxy
from tests.fake_udp_tracker import FakeUdpTracker
from tests.support import payload, wait_until
from tests.web_server import WebServer
from torrent_client.cli.exit_codes import ExitCode
from torrent_client.cli.main import main
from torrent_client.config import Config
from torrent_client.doctor import examination as examination_module
from torrent_client.doctor.diagnosis import Cause, Finding, Outcome
from torrent_client.doctor.examination import Examination
from torrent_client.doctor.patient import Patient
from torrent_client.doctor.peer_probe import Patience
from torrent_client.local_tracker import LocalTracker
from torrent_client.misbehaving_peers import BEHAVIOURS, Gallery
from torrent_client.protocol.messages import Handshake
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress, Progress, TrackerClient

MAIN = Path(__file__).parent.parent / "main.py"
PIECE = 32 * 1024
DATA = payload(4 * PIECE)
TORRENT = torrent_of(DATA, PIECE)
ALONE = ["--no-lsd", "--no-portmap", "--no-dht", "--port", "0"]
QUICK = Patience(connect=1.5, handshake=1.5, pieces=1.5, unchoke=1.5, block=1.5)  # seconds that a busy machine has


def torrent_file(tmp_path: Path, data: bytes = DATA, **top: object) -> Path:
    """Write a .torrent."""
    path = tmp_path / "file.torrent"
    path.write_bytes(metainfo(data, PIECE, **top))
    return path


def doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run the command; return its code and what it printed."""
    words = [
        "doctor",
        *map(str, arguments),
        *ALONE,
        "-o",
        str(tmp_path / "out"),
        "--state-dir",
        str(tmp_path / "state"),
    ]
    before = sorted(tmp_path.rglob("*"))
    code = main(words)
    assert sorted(tmp_path.rglob("*")) == before, "the doctor wrote something"
    return code, capsys.readouterr().out


def examine(patient: Patient) -> tuple[list[Finding], Examination]:
    """Run an examination with little patience."""
    examination = Examination(patient, patience=QUICK)
    return list(examination.findings()), examination


def of_topic(findings: Sequence[Finding], topic: str) -> list[Finding]:
    """Return those of one kind."""
    return [finding for finding in findings if finding.topic == topic]


# --- whole examinations -----------------------------------------------------------------------------------


def test_peers_of_a_tracker_are_called_and_the_download_would_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LocalTracker() as tracker, FakeServer(seeder(TORRENT, DATA)) as server:
        announce = TrackerClient(tracker.announce_url, TORRENT.info_hash, b"-PC0000-seeder000000", server.port)
        announce.announce(Progress(0, 0, 0), "started")
        code, out = doctor(tmp_path, capsys, torrent_file(tmp_path, announce=tracker.announce_url))
        known = announce.scrape([TORRENT.info_hash])[TORRENT.info_hash]
    assert code == ExitCode.OK
    assert out.endswith("\nyou would download: 1 peer has pieces for you\n")
    assert f"ok    tracker   {tracker.announce_url}: 1 peer; 1 seeder" in out
    assert f"ok    peer      {server.address}: " in out
    assert "gave a good piece" in out
    assert (known.seeders, known.leechers) == (1, 0)  # we have left


def test_a_web_seed_alone_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with WebServer({"/file.bin": DATA}) as server:
        code, out = doctor(tmp_path, capsys, torrent_file(tmp_path), "--web-seed", server.url)
    assert code == ExitCode.OK
    assert out.endswith("you would download: 1 web seed has pieces for you\n")


def test_nobody_there_is_told_with_the_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://{LOOPBACK}:{closed_port()}/announce"
    code, out = doctor(tmp_path, capsys, torrent_file(tmp_path, announce=url))
    assert code == ExitCode.STALLED
    assert f"bad   tracker   {url}: connection refused" in out
    assert "-> it is down, or has moved" in out
    assert out.endswith("nobody has the file: no tracker answered\n")


def test_an_advice_is_given_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peers = [word for _ in range(3) for word in ("--peer", f"{LOOPBACK}:{closed_port()}")]
    code, out = doctor(tmp_path, capsys, torrent_file(tmp_path), *peers)
    assert code == ExitCode.STALLED
    assert out.count("refused: nothing listens there") == 3
    assert out.count("-> it has gone since") == 1
    assert out.endswith("nobody can be reached: 3 peers called (3 refused)\n")


def test_json_is_one_object_a_line_and_the_verdict_the_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer(seeder(TORRENT, DATA)) as server:
        code, out = doctor(tmp_path, capsys, torrent_file(tmp_path), "--peer", server.address, "--json")
    *findings, verdict = [json.loads(line) for line in out.splitlines()]
    assert verdict == {
        "type": "verdict",
        "works": True,
        "cause": "works",
        "text": "you would download: 1 peer has pieces for you",
        "exit_code": code,
    }
    assert {finding["type"] for finding in findings} == {"finding"}
    (peer,) = [finding for finding in findings if finding["topic"] == "peer"]
    assert (peer["subject"], peer["outcome"], peer["supply"]) == (str(server.address), "ok", "gives")
    assert peer["facts"]["result"] == "gave a piece"


def test_quiet_prints_the_verdict_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = doctor(tmp_path, capsys, torrent_file(tmp_path), "-q")
    assert (code, out) == (ExitCode.STALLED, "nobody has the file: there is nothing to find peers with\n")


@pytest.mark.parametrize("option", ["--json", "-v"])
def test_a_torrent_that_is_none_is_a_finding(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "page.torrent"
    path.write_bytes(b"<html>")
    code, out = doctor(tmp_path, capsys, path, option)
    assert code == ExitCode.BAD_TORRENT
    assert "you would not download" in out
    assert "it is a web page" in out


def test_a_disk_that_cannot_be_used_is_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    with FakeServer(seeder(TORRENT, DATA)) as server:
        code, out = doctor(tmp_path, capsys, torrent_file(tmp_path), "--peer", server.address)
    assert code == ExitCode.STORAGE
    assert "bad   disk" in out
    assert "you would not download: cannot be written" in out


def test_behind_an_http_proxy_nobody_is_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer(seeder(TORRENT, DATA)) as server:
        proxy = f"http://{LOOPBACK}:{closed_port()}"
        code, out = doctor(tmp_path, capsys, torrent_file(tmp_path), "--peer", server.address, "--proxy", proxy)
        assert not server.peers
    assert code == ExitCode.STALLED
    assert f"bad   proxy     {proxy}: connection refused" in out
    assert "off   port      off: nobody can call you through a proxy" in out


def certificate(folder: Path, begins: datetime) -> Path:
    """Write a certificate for this machine that is valid from a date on, and its key; anybody may trust it itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, LOOPBACK)])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(begins).not_valid_after(begins + timedelta(days=30))
    hosts = x509.SubjectAlternativeName([x509.IPAddress(ip_address(LOOPBACK))])
    made = builder.add_extension(hosts, critical=False).sign(key, hashes.SHA256())
    path = folder / "certificate.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(made.public_bytes(Encoding.PEM) + secret)
    return path


def test_a_certificate_of_the_future_is_blamed_on_the_clock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = certificate(tmp_path, datetime.now(UTC) + timedelta(days=10))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))

    def script(peer: FakePeer) -> None:
        with suppress(OSError):
            context.wrap_socket(peer.sock, server_side=True).close()

    with FakeServer(script) as server:
        code, out = doctor(tmp_path, capsys, torrent_file(tmp_path, announce=f"https://{server.address}/announce"))
    assert code == ExitCode.STALLED
    assert "its certificate is not trusted: certificate is not yet valid" in out
    assert "bad   clock     this machine says " in out
    assert "-> set the clock" in out


def test_behind_a_socks_proxy_everything_goes_through_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The name of the tracker is known to the proxy alone, and the UDP tracker hears nothing."""
    with (
        SocksProxy({"tracker.invalid": (LOOPBACK, closed_port())}) as proxy,
        FakeUdpTracker() as udp,
        FakeServer(seeder(TORRENT, DATA)) as server,
    ):
        path = torrent_file(tmp_path, **{"announce-list": [["http://tracker.invalid/announce"], [udp.url]]})
        code, out = doctor(tmp_path, capsys, path, "--peer", server.address, "--proxy", proxy.url())
        assert not udp.seen
        assert {("tracker.invalid", 80), (LOOPBACK, server.port)} <= set(proxy.asked)
    assert code == ExitCode.OK
    assert "ok    proxy     socks5://" in out
    assert "UDP does not go through the proxy" in out


def test_what_passes_can_be_traced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.touch()
    with FakeServer(seeder(TORRENT, DATA)) as server:
        doctor(tmp_path, capsys, torrent_file(tmp_path), "--peer", server.address, "--trace-file", trace)
    names = [json.loads(line).get("name") for line in trace.read_text().splitlines()]
    assert {"handshake", "interested", "request"} <= set(names)


def test_of_a_magnet_link_the_metadata_is_looked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def script(peer: FakePeer) -> None:
        peer.shake_hands(TORRENT.info_hash)  # no extension protocol

    with FakeServer(script) as server:
        link = f"magnet:?xt=urn:btih:{TORRENT.info_hash.hex()}&x.pe={server.address}&ws=http://192.0.2.1/x"
        code, out = doctor(tmp_path, capsys, link)
    assert code == ExitCode.STALLED
    assert "it does not speak the extension protocol" in out
    assert "off   web seed  cannot be asked before the metadata is there" in out
    assert "nobody has the metadata for you" in out


@contextmanager
def gallery() -> Iterator[dict[str, PeerAddress]]:
    """Run one of each misbehaving peer."""

    def read_block(index: int, begin: int, length: int) -> bytes:
        start = index * PIECE + begin
        return DATA[start : start + length]

    peers = {name: Gallery(TORRENT, read_block, kind, rng=Random(name)) for name, kind in BEHAVIOURS.items()}
    for peer in peers.values():
        peer.start()
    try:
        yield {name: PeerAddress(LOOPBACK, peer.port) for name, peer in peers.items()}
    finally:
        for peer in peers.values():
            peer.stop()


def test_among_misbehaving_peers_the_good_ones_are_found(tmp_path: Path) -> None:
    with gallery() as addresses:
        patient = Patient(TORRENT, Config(listen_port=0), tmp_path, given_peers=tuple(addresses.values()))
        findings, examination = examine(patient)
    by_address = {finding.subject: finding for finding in of_topic(findings, "peer")}
    results = {name: by_address[str(address)].facts["result"] for name, address in addresses.items()}
    assert results["good"].startswith("gave")
    bad = {name for name, address in addresses.items() if by_address[str(address)].outcome is Outcome.BAD}
    assert {"stall", "liar", "flood", "garbage", "silent", "impostor"} <= bad
    assert examination.verdict().cause is Cause.WORKS


# --- details of an examination ----------------------------------------------------------------------------


def test_who_calls_us_shows_that_we_can_be_called_and_we_know_ourselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that a tracker has told of us calls while we still wait for another one."""
    listeners: list[int] = []
    open_port = Examination._open_port  # where the port is known first

    def noting(self: Examination) -> Finding:
        finding = open_port(self)
        listeners.append(finding.facts["port"])
        self._on_peers("tracker")([PeerAddress(LOOPBACK, listeners[0])])  # as trackers do
        return finding

    monkeypatch.setattr(Examination, "_open_port", noting)

    def slow(peer: FakePeer) -> None:
        greet(peer, TORRENT, pieces=[])
        with FakePeer.dial(listeners[0]) as caller:
            caller.send_raw(Handshake(TORRENT.info_hash, b"-FK0001-caller000000").encode())
            assert caller.read_handshake().info_hash == TORRENT.info_hash
            caller.read_until_gone()

    with FakeServer(slow) as server:
        findings, _ = examine(Patient(TORRENT, Config(listen_port=0), tmp_path, given_peers=(server.address,)))
    assert "1 peer called you meanwhile: you can be reached" in [f.text for f in of_topic(findings, "port")]
    assert "that is this client itself" in [f.text for f in of_topic(findings, "peer")]


def test_the_time_is_limited_and_what_was_seen_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seeder that never unchokes us is worth the line that it has all pieces."""
    monkeypatch.setattr(examination_module, "TIME_LIMIT", 1.5)

    def script(peer: FakePeer) -> None:
        greet(peer, TORRENT)
        peer.read_until_gone()

    with FakeServer(script) as server:
        patient = Patient(TORRENT, Config(listen_port=0), tmp_path, given_peers=(server.address,))
        examination = Examination(patient)
        findings = list(examination.findings())
    (peer,) = of_topic(findings, "peer")
    assert peer.facts["result"] == "choked us"
    assert "once it is your turn" in examination.verdict().text


def test_not_everybody_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination_module, "MAX_PEERS", 2)
    peers = tuple(PeerAddress(LOOPBACK, closed_port()) for _ in range(5))
    findings, _ = examine(Patient(TORRENT, Config(listen_port=0), tmp_path, given_peers=peers))
    assert "3 more are known and were not called" in [f.text for f in of_topic(findings, "peer")]


def test_only_a_few_are_asked_for_a_whole_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination_module, "WHOLE_PIECES", 1)
    with serving(seeder(TORRENT, DATA), seeder(TORRENT, DATA)) as servers:
        peers = tuple(server.address for server in servers)
        findings, _ = examine(Patient(TORRENT, Config(listen_port=0), tmp_path, given_peers=peers))
    results = sorted(finding.facts["result"] for finding in of_topic(findings, "peer"))
    assert results == ["gave a block", "gave a piece"]


def test_a_probe_with_a_bug_is_a_finding_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: object) -> Finding:
        raise RuntimeError("a bug")

    monkeypatch.setattr(examination_module.sources, "tracker_finding", broken)
    torrent = TorrentFile.from_bytes(metainfo(DATA, PIECE, announce="http://192.0.2.1/announce"))
    with FakeServer(seeder(TORRENT, DATA)) as server:
        patient = Patient(torrent, Config(listen_port=0), tmp_path, given_peers=(server.address,))
        findings, examination = examine(patient)
    (tracker,) = of_topic(findings, "tracker")
    assert "internal error" in tracker.text
    assert examination.verdict().cause is Cause.WORKS
    assert "a bug" in caplog.text


def test_the_router_and_the_local_network_are_asked_unless_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(topic: str) -> Finding:
        return Finding(topic, "", Outcome.OK, "asked")

    monkeypatch.setattr(examination_module.machine, "router_finding", lambda *_: said("router"))
    monkeypatch.setattr(examination_module.sources, "local_finding", lambda *_: said("local"))
    monkeypatch.setattr(examination_module.sources, "dht_finding", lambda *_: said("dht"))
    for is_on in (True, False):
        config = Config(listen_port=0, portmap=is_on, lsd=is_on, dht=is_on)
        findings, _ = examine(Patient(TORRENT, config, tmp_path))
        outcomes = {topic: of_topic(findings, topic)[0].outcome for topic in ("router", "local", "dht")}
        assert set(outcomes.values()) == {Outcome.OK if is_on else Outcome.OFF}


# --- the end, as a user brings it about -------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_at_once_with_what_is_known(number: int, code: int, tmp_path: Path) -> None:
    """One tracker never answers, and a peer has."""
    asked = threading.Event()

    def silent(_datagram: bytes) -> Sequence[bytes]:
        asked.set()
        return ()

    with FakeUdpTracker(silent) as tracker, FakeServer(seeder(TORRENT, DATA)) as server:
        path = torrent_file(tmp_path, announce=tracker.url)
        command: list[Any] = [sys.executable, MAIN, "doctor", path, *ALONE, "--json", "-o", tmp_path]
        process = subprocess.Popen([*command, "--peer", str(server.address)], stdout=subprocess.PIPE, text=True)
        try:
            lines: list[str] = []
            assert process.stdout
            while not any('"topic": "peer"' in line for line in lines):
                lines.append(process.stdout.readline())
                assert lines[-1], "it ended early"
            assert asked.wait(10)
            process.send_signal(number)
            rest, _ = process.communicate(timeout=6)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == code
    verdict = json.loads(rest.splitlines()[-1])
    assert verdict["text"].startswith("stopped early; as far as is known, you would download: 1 peer")
    assert verdict["exit_code"] == code


def test_a_taken_port_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        main(["doctor", str(torrent_file(tmp_path)), *ALONE[:3], "--port", str(port), "-o", str(tmp_path)])
    assert f"port {port} is taken by another program" in capsys.readouterr().out


def test_nothing_that_was_started_is_left(tmp_path: Path) -> None:
    findings, _ = examine(Patient(TORRENT, Config(listen_port=0), tmp_path))
    assert findings
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("probe")])
