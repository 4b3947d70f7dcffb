"""One examination: all probes at the same time, findings as they come, an end after some twenty seconds.

    trackers, DHT, local network --addresses--> the queue --> peer probes, sixteen at once --+
    router, proxy, web seeds ------------------------------------------------------------- --+--> findings
    the torrent, the disk, the port (at once) -----------------------------------------------+

It begins and ends in `findings`, whose caller's thread decides everything; probes run on threads of their own, and what
they find comes to it through a queue. Once it is over they are told so: sockets are shut down, and what cannot be
interrupted (a name look-up, the search for a router) is left behind.

Meanwhile peers may call us, since trackers were told of us: that shows that they can.

Spec: BEP 3.
Thread: the caller's; a `probe` for each thing that is asked, and the listener's.
Lock: none; a queue.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final, NamedTuple, TypeAlias

from torrent_client.abort import Abort
from torrent_client.doctor import machine, sources
from torrent_client.doctor.diagnosis import Finding, Outcome, Verdict, conclude
from torrent_client.doctor.patient import Patient
from torrent_client.doctor.peer_probe import Contact, Patience, PeerProbe
from torrent_client.encryption import PeerSocket
from torrent_client.errors import TorrentError
from torrent_client.listener import Listener
from torrent_client.local_discovery import LocalDiscovery
from torrent_client.port_mapping import find_upnp_gateway
from torrent_client.protocol.messages import Handshake
from torrent_client.proxy import NO_PEERS, UNREACHABLE_PORT, may_dial_peers
from torrent_client.text import printable
from torrent_client.tracker_client import PeerAddress, TrackerClient, generate_peer_id

logger = logging.getLogger(__name__)

TIME_LIMIT: Final = 20.0
"""Seconds for all of it: as long as somebody watches a screen on which something happens."""

LAST_WORDS: Final = 2.0
"""Seconds in which probes that are told to end may still say what they have seen."""

TICK: Final = 0.1
"""Seconds after which a wish to stop is noticed."""

MAX_PEERS: Final = 40
"""Peers called at most: where forty say nothing, forty more will not."""

PEERS_AT_ONCE: Final = 16
"""Peers called at the same time; a download dials as many."""

WHOLE_PIECES: Final = 4
"""Peers that are asked for a whole piece, others for a block: an examination is no download."""

MAX_TRACKERS: Final = 20
"""Trackers asked at most; some torrents name a hundred copies of the same five."""

MAX_WEB_SEEDS: Final = 8
"""Web seeds asked at most; a download uses as many."""


class _Found(NamedTuple):
    """Addresses that a source has named."""

    peers: Sequence[PeerAddress]
    source: str


class _Ended(NamedTuple):
    """A probe has ended."""

    name: str


_Event: TypeAlias = Finding | _Found | _Ended


class Examination:
    """Looks at one torrent, or magnet link.

    Args:
        patient: which one.
        should_stop: whether the user has had enough.
        patience: time limits of peers.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        patient: Patient,
        should_stop: Callable[[], bool] = lambda: False,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing known."""
        self._patient = patient
        self._should_stop = should_stop
        self._patience = patience
        self._clock = clock
        self._peer_id = generate_peer_id()
        self._events: SimpleQueue[_Event] = SimpleQueue()
        self._abort = Abort()
        self._threads: list[Thread] = []
        self._running: dict[str, int] = {}  # how many probes of each name
        self._closers: list[Callable[[], None]] = []
        self._waiting: deque[Contact] = deque()
        self._known: set[PeerAddress] = set()
        self._called = 0
        self._callers: set[PeerAddress] = set()
        self._findings: list[Finding] = []
        self._listener: Listener | None = None

    def verdict(self) -> Verdict:
        """Return the verdict about all findings so far."""
        return conclude(self._findings, self._patient.wanted, of_magnet=self._patient.torrent is None)

    def findings(self) -> Iterator[Finding]:
        """Look at everything, and give each finding as it comes."""
        deadline = self._clock() + TIME_LIMIT
        try:
            for finding in self._examine(deadline):
                self._findings.append(finding)
                yield finding
        finally:
            self._end()

    def _examine(self, deadline: float) -> Iterator[Finding]:
        yield from machine.torrent_findings(self._patient)
        yield from machine.disk_findings(self._patient)
        yield self._open_port()
        self._begin()
        yield from self._switched_off()
        while (self._running or self._waiting) and not self._should_stop() and self._clock() < deadline:
            self._call_more()
            yield from self._next_findings()
        if not self._should_stop():
            self._hang_up()
            last = self._clock() + LAST_WORDS
            while self._running and self._clock() < last and not self._should_stop():
                yield from self._next_findings()
        yield from self._conclusions()

    # --- beginning -------------------------------------------------------------------------------------

    def _open_port(self) -> Finding:
        """Listen, as a download would."""
        config = self._patient.config
        if not config.allows_direct:
            return Finding("port", "", Outcome.OFF, "off: nobody can call you through a proxy")
        try:
            self._listener = Listener(config)
        except TorrentError as error:
            return machine.port_finding(config, None, str(error))
        self._listener.serve(self._patient.info_hash, self._accept)
        self._listener.start()
        return machine.port_finding(config, self._listener.port)

    def _accept(self, sock: PeerSocket, address: PeerAddress, handshake: Handshake) -> bool:
        """Answer the handshake of a peer that calls, and let it go: so we also know ourselves when we call."""
        with suppress(OSError):
            sock.sendall(Handshake(self._patient.info_hash, self._peer_id).encode())
        if handshake.peer_id != self._peer_id:
            self._callers.add(address)
        return False

    def _begin(self) -> None:
        """Start everything that takes time."""
        patient, port = self._patient, self._listener.port if self._listener else 0
        self._take(_Found(patient.peers, "given"))
        for url in patient.trackers[:MAX_TRACKERS]:
            client = TrackerClient(
                url, patient.info_hash, self._peer_id, port or UNREACHABLE_PORT, config=patient.config
            )
            self._start("tracker", self._tracker, client)
        if sources.why_no_dht(patient) is None:
            self._start("dht", lambda: sources.dht_finding(patient, 0, self._on_peers("dht"), self._is_over))
        if sources.why_no_local(patient) is None:
            discovery = LocalDiscovery(port, patient.config)
            on_peers = self._on_peers("lsd")
            self._start("local", lambda: sources.local_finding(discovery, patient.info_hash, on_peers, self._is_over))
        if self._listener and patient.config.portmap:
            find = partial(find_upnp_gateway, patient.config.portmap_interface)
            self._start("router", lambda: machine.router_finding(port, find, self._is_over))
        if patient.config.proxy:
            self._start("proxy", lambda: machine.proxy_finding(patient.config))
        for url, by_piece in list(patient.web_seeds.items())[:MAX_WEB_SEEDS]:
            if patient.torrent and patient.torrent.piece_count:
                self._start("web seed", self._web_seed, url, by_piece)

    def _switched_off(self) -> Iterator[Finding]:
        """Say what is not asked, and why."""
        patient = self._patient
        if reason := sources.why_no_dht(patient):
            yield Finding("dht", "", Outcome.OFF, reason)
        if reason := sources.why_no_local(patient):
            yield Finding("local", "", Outcome.OFF, reason)
        if self._listener and not patient.config.portmap:
            yield Finding("router", "", Outcome.OFF, "not asked: --no-portmap")
        for topic, urls, limit in (
            ("tracker", patient.trackers, MAX_TRACKERS),
            ("web seed", list(patient.web_seeds), MAX_WEB_SEEDS),
        ):
            if len(urls) > limit:
                yield Finding(topic, "", Outcome.OFF, f"{len(urls) - limit} more are not asked here")
        if patient.web_seeds and patient.torrent is None:
            yield Finding("web seed", "", Outcome.OFF, "cannot be asked before the metadata is there")
        if not may_dial_peers(patient.config):
            yield Finding("peer", "", Outcome.OFF, NO_PEERS)

    def _tracker(self, client: TrackerClient) -> Finding:
        return sources.tracker_finding(client, self._patient, self._on_peers("tracker"), self._abort)

    def _web_seed(self, url: str, by_piece: bool) -> Finding:
        torrent, config = self._patient.torrent, self._patient.config
        assert torrent
        return sources.web_seed_finding(url, torrent, config, by_piece=by_piece, on_open=self._closers.append)

    def _on_peers(self, source: str) -> Callable[[Sequence[PeerAddress]], None]:
        """Return what takes addresses on any thread."""
        return lambda peers: self._events.put(_Found(tuple(peers), source))

    def _start(self, name: str, probe: Callable[..., Finding], *arguments: object) -> None:
        """Run a probe on a thread of its own; the error boundary of all probes."""

        def run() -> None:
            try:
                self._events.put(probe(*arguments))
            except Exception as error:
                logger.exception("the probe of the %s failed", name)
                self._events.put(Finding(name, "", Outcome.BAD, f"internal error: {printable(repr(error))}"))
            finally:
                self._events.put(_Ended(name))

        self._running[name] = self._running.get(name, 0) + 1
        thread = Thread(target=run, name=f"probe {name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    # --- under way -------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        return self._abort.is_set

    def _next_findings(self) -> Iterator[Finding]:
        """Wait a moment for what the probes say, and give findings."""
        with suppress(Empty):
            event = self._events.get(timeout=TICK)
            while True:
                if isinstance(event, Finding):
                    yield event
                else:
                    self._take(event)
                event = self._events.get_nowait()

    def _take(self, event: _Found | _Ended) -> None:
        """Take note of addresses, or of a probe's end."""
        if isinstance(event, _Ended):
            self._running[event.name] -= 1
            if not self._running[event.name]:
                del self._running[event.name]
            return
        new = [peer for peer in dict.fromkeys(event.peers) if peer not in self._known]
        self._known.update(new)
        self._waiting.extend(Contact(peer, event.source) for peer in new)

    def _call_more(self) -> None:
        """Call as many peers as there is room for."""
        while self._waiting and self._running.get("peer", 0) < PEERS_AT_ONCE:
            contact = self._waiting.popleft()
            if self._called >= MAX_PEERS or not may_dial_peers(self._patient.config):
                continue
            probe = PeerProbe(
                contact,
                self._patient.info_hash,
                self._peer_id,
                self._patient.torrent,
                self._patient.config,
                self._patience,
                fetches_whole=self._called < WHOLE_PIECES,
                clock=self._clock,
            )
            self._called += 1
            self._closers.append(probe.close)
            self._start("peer", probe.run)

    # --- the end ---------------------------------------------------------------------------------------

    def _conclusions(self) -> Iterator[Finding]:
        """Give what follows from all that was seen."""
        if (left := len(self._known) - self._called) and may_dial_peers(self._patient.config):
            yield Finding("peer", "", Outcome.OFF, f"{left:,} more are known and were not called")
        if self._callers:
            count = len({caller.host for caller in self._callers})
            text = f"{count} peer{'' if count == 1 else 's'} called you meanwhile: you can be reached"
            yield Finding("port", "", Outcome.OK, text, facts={"callers": count})
        failed = [finding for finding in self._findings if finding.topic in ("tracker", "web seed")]
        troubles = [finding.text for finding in failed if finding.outcome is Outcome.BAD]
        if clock := machine.clock_finding(self._patient, troubles):
            yield clock

    def _hang_up(self) -> None:
        """Tell every probe that it is over."""
        self._abort.set()
        for close in list(self._closers):
            close()

    def _end(self) -> None:
        """Leave nothing behind but what cannot be interrupted."""
        self._hang_up()
        if self._listener:
            self._listener.stop()
        deadline = time.monotonic() + LAST_WORDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
