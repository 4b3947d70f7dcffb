"""The doctor looks at this machine's side: torrent, disk, clock, proxy, port, router; and changes nothing."""

import os
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.fake_peer import LOOPBACK, FakeServer, closed_port, torrent_of
from tests.fake_proxy import HttpProxy, SocksProxy
from tests.support import payload
from torrent_client import storage
from torrent_client.config import Config
from torrent_client.doctor import machine
from torrent_client.doctor.diagnosis import Finding, Outcome
from torrent_client.doctor.patient import Patient
from torrent_client.errors import PortMappingError
from torrent_client.listener import Listener
from torrent_client.magnet import MagnetLink
from torrent_client.port_mapping import Gateway
from torrent_client.torrent_parser import TorrentFile

DATA = payload(100_000)
TORRENT = torrent_of(DATA, announce="http://192.0.2.1/announce")
MAGNET = MagnetLink(TORRENT.info_hash, "a name", ("http://192.0.2.1/announce",))


def patient(source: TorrentFile | MagnetLink = TORRENT, output: Path = Path(), **config: bool | str) -> Patient:
    """Return somebody to look at."""
    return Patient(source, Config(**config), output)  # type: ignore[arg-type]


def disk(tmp_path: Path, torrent: TorrentFile = TORRENT) -> list[Finding]:
    """Return what is found about the disk, and see that nothing was changed."""
    before = sorted(path.name for path in tmp_path.rglob("*"))
    findings = list(machine.disk_findings(patient(torrent, tmp_path)))
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    return findings


# --- the torrent ------------------------------------------------------------------------------------------


def test_a_usual_torrent_is_one_good_line() -> None:
    (finding,) = machine.torrent_findings(patient())
    assert (finding.outcome, finding.text) == (Outcome.OK, "file.bin, 97.7 KiB in 4 pieces, 1 tracker")


def test_a_magnet_link_says_that_the_metadata_is_missing() -> None:
    (finding,) = machine.torrent_findings(patient(MAGNET))
    assert "peers must have the metadata" in finding.text


def test_a_torrent_without_trackers_says_where_peers_come_from() -> None:
    _, note = machine.torrent_findings(patient(torrent_of(DATA), dht=True, lsd=True))
    assert (note.outcome, note.text) == (
        Outcome.NOTE,
        "no trackers: peers come from the DHT and the local network",
    )
    assert not note.advice
    _, note = machine.torrent_findings(patient(torrent_of(DATA)))
    assert "--no-dht" in note.advice


def test_a_private_torrent_without_trackers_is_hopeless() -> None:
    _, note = machine.torrent_findings(patient(TORRENT._replace(is_private=True), dht=True))
    assert note.outcome is Outcome.NOTE
    _, bad = machine.torrent_findings(patient(torrent_of(DATA)._replace(is_private=True), dht=True))
    assert (bad.outcome, bad.topic) == (Outcome.BAD, "torrent")


# --- the clock --------------------------------------------------------------------------------------------

NOW = datetime(2020, 1, 1, tzinfo=UTC)


def test_nothing_speaks_against_the_clock() -> None:
    made = TORRENT._replace(creation_date=datetime(2019, 5, 1, tzinfo=UTC))
    assert machine.clock_finding(patient(made), ["no answer in 8 s"], NOW) is None


def test_a_certificate_of_the_future_is_this_clocks_fault() -> None:
    trouble = "its certificate is not trusted: certificate is not yet valid"
    finding = machine.clock_finding(patient(), [trouble], NOW)
    assert finding
    assert (finding.outcome, finding.topic) == (Outcome.BAD, "clock")
    assert "2020-01-01" in finding.text
    assert "set the clock" in finding.advice


def test_a_torrent_of_the_future_is_too() -> None:
    made = TORRENT._replace(creation_date=datetime(2024, 5, 1, tzinfo=UTC))
    finding = machine.clock_finding(patient(made), [], NOW)
    assert finding
    assert "made on 2024-05-01" in finding.text


def test_an_expired_certificate_may_be_either() -> None:
    finding = machine.clock_finding(patient(), ["its certificate is not trusted: certificate has expired"], NOW)
    assert finding
    assert finding.outcome is Outcome.NOTE


# --- the disk ---------------------------------------------------------------------------------------------


def test_an_empty_directory_is_good_and_one_that_is_not_there_yet_too(tmp_path: Path) -> None:
    (finding,) = disk(tmp_path)
    assert finding.outcome is Outcome.OK
    assert finding.facts["needed"] == len(DATA)
    (finding,) = machine.disk_findings(patient(output=tmp_path / "new" / "er"))
    assert finding.outcome is Outcome.OK
    assert not (tmp_path / "new").exists()


def test_a_magnet_link_tells_of_free_space_only(tmp_path: Path) -> None:
    (finding,) = machine.disk_findings(patient(MAGNET, tmp_path))
    assert "free; how much is needed the metadata will tell" in finding.text


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "FREE_SPACE_RESERVE", 1 << 60)
    (finding,) = disk(tmp_path)
    assert finding.outcome is Outcome.BAD
    assert "not enough space" in finding.text


def test_a_directory_that_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the system says, since tests may run as somebody who may do everything."""
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    finding, *_ = disk(tmp_path)
    assert finding.outcome is Outcome.BAD
    assert "permission denied" in finding.text


def test_a_file_in_the_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    finding, *_ = machine.disk_findings(patient(output=tmp_path / "file"))
    assert finding.outcome is Outcome.BAD
    assert "is no directory" in finding.text


def test_what_is_there_already_is_counted(tmp_path: Path) -> None:
    (tmp_path / TORRENT.name).write_bytes(DATA)
    _, finding = disk(tmp_path)
    assert finding.text == "there already: 1 of 1 files at full size, 0 shorter"
    assert "verify" in finding.advice


def test_a_directory_or_a_link_in_the_place_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / TORRENT.name).mkdir()
    assert disk(tmp_path)[-1].outcome is Outcome.BAD
    (tmp_path / TORRENT.name).rmdir()
    (tmp_path / TORRENT.name).symlink_to("/dev/null")
    assert "something else in the place of file.bin" in disk(tmp_path)[-1].text


def test_a_file_where_a_directory_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "album").write_bytes(b"x")
    torrent = torrent_of({"a.txt": DATA}, name="album")
    assert "something else" in disk(tmp_path, torrent)[-1].text


def test_changed_names_are_told(tmp_path: Path) -> None:
    torrent = torrent_of({"a/../../b": DATA[:10], "c": DATA[10:]}, name="album")
    texts = [finding.text for finding in disk(tmp_path, torrent)]
    assert any("1 name of the torrent would be changed" in text for text in texts)


def test_names_that_are_too_long_here_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pathconf", lambda _path, name: {"PC_NAME_MAX": 5, "PC_PATH_MAX": 4096}[name])
    assert "takes no names as long as file.bin" in disk(tmp_path)[-1].text


# --- the proxy --------------------------------------------------------------------------------------------


def test_a_socks_proxy_answers() -> None:
    with SocksProxy() as proxy:
        finding = machine.proxy_finding(Config(proxy=f"socks5://{LOOPBACK}:{proxy.port}"))
    assert finding.outcome is Outcome.OK


def test_a_password_is_checked_and_never_shown() -> None:
    with SocksProxy(login=("me", "secret")) as proxy:
        good, bad, none = (
            machine.proxy_finding(Config(proxy=f"socks5://{login}{LOOPBACK}:{proxy.port}"))
            for login in ("me:secret@", "me:wrong@", "")
        )
    assert (good.outcome, bad.outcome, none.outcome) == (Outcome.OK, Outcome.BAD, Outcome.BAD)
    assert "refuses the user name or the password" in bad.text
    assert "wants a user name" in none.text
    assert "secret" not in str(good) + str(bad)


def test_no_proxy_there() -> None:
    finding = machine.proxy_finding(Config(proxy=f"socks5://{LOOPBACK}:{closed_port()}"))
    assert (finding.outcome, finding.text) == (Outcome.BAD, "connection refused: nothing listens there")


def test_an_http_proxy_carries_no_peers() -> None:
    with HttpProxy() as proxy:
        finding = machine.proxy_finding(Config(proxy=f"http://{LOOPBACK}:{proxy.port}"))
    assert finding.outcome is Outcome.NOTE
    assert "socks5://" in finding.advice


def test_something_else_than_a_proxy() -> None:
    with FakeServer(lambda peer: peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n")) as server:
        finding = machine.proxy_finding(Config(proxy=f"socks5://{server.address}"))
    assert (finding.outcome, finding.text) == (Outcome.BAD, "it does not speak SOCKS5")


# --- the port and the router ------------------------------------------------------------------------------


def test_a_free_port_is_heard() -> None:
    listener = Listener(Config(listen_port=0))
    listener.start()
    try:
        finding = machine.port_finding(Config(listen_port=listener.port), listener.port)
    finally:
        listener.stop()
    assert finding.outcome is Outcome.OK
    assert "IPv4" in finding.facts["families"]


def test_a_port_that_another_program_has_is_told() -> None:
    with socket.create_server(("", 0)) as other:
        wanted = other.getsockname()[1]
        listener = Listener(Config(listen_port=wanted))
        listener.start()
        try:
            finding = machine.port_finding(Config(listen_port=wanted), listener.port)
        finally:
            listener.stop()
    assert finding.outcome is Outcome.NOTE
    assert f"port {wanted} is taken by another program" in finding.text


def test_no_port_at_all_is_bad() -> None:
    finding = machine.port_finding(Config(), None, "cannot listen for peers: no port is free")
    assert (finding.outcome, finding.subject) == (Outcome.BAD, "6881")
    finding = machine.port_finding(Config(), closed_port())
    assert finding.text == "we listen, and are not heard"


class FakeGateway:
    """A router in memory."""

    def __init__(self, address: str = "8.8.4.4") -> None:
        self.address = address
        self.mapped: set[tuple[int, str]] = set()
        self.asked = 0

    def external_address(self) -> str:
        """Return it."""
        return self.address

    def map(self, port: int, protocol: str, lease: int) -> None:
        """Map, for a while."""
        assert lease
        self.asked += 1
        self.mapped.add((port, protocol))

    def unmap(self, port: int, protocol: str) -> None:
        """Take it back."""
        self.mapped.remove((port, protocol))


def never() -> bool:
    """Want to know everything."""
    return False


def test_a_router_that_maps_is_left_as_it_was() -> None:
    gateway = FakeGateway()
    finding = machine.router_finding(6881, lambda: gateway, never)
    assert finding.outcome is Outcome.OK
    assert finding.text == "lets peers in: mapped to 8.8.4.4:6881"
    assert gateway.asked == 2
    assert not gateway.mapped


def test_a_router_behind_a_router_is_worth_a_note() -> None:
    finding = machine.router_finding(6881, lambda: FakeGateway("192.168.7.2"), never)
    assert finding.outcome is Outcome.NOTE
    assert "behind another one" in finding.text


def test_no_router_is_no_drama() -> None:
    def none() -> Gateway:
        raise PortMappingError("no router that maps ports (UPnP) was found")

    finding = machine.router_finding(6881, none, never)
    assert finding.outcome is Outcome.NOTE
    assert "forward port 6881" in finding.advice


def test_who_has_had_enough_does_not_wait_for_a_router() -> None:
    release = threading.Event()

    def slow() -> Gateway:
        release.wait(10)
        raise PortMappingError("late")

    try:
        finding = machine.router_finding(6881, slow, lambda: True)
    finally:
        release.set()
    assert finding.text == "no answer in time"
