"""Every tunable of the client, once: unit, reason, precedent.

The precedents were read from the sources of libtorrent, Transmission, rain, rqbit, aria2 and
Mainline. A `Config` does not change; a command line option makes a changed copy with `_replace`.

Thread: none (immutable).
Lock: none.
"""

from typing import NamedTuple

KIB = 1024
MIB = 1024 * KIB

BLOCK_SIZE = 16 * KIB
"""Bytes per requested block. BEP 3: "all current implementations use 2^14"; more is cut off by some."""


class Config(NamedTuple):
    """The numbers that decide how one session behaves."""

    # --- peers -----------------------------------------------------------------------------------
    max_peers: int = 50
    """Connections per torrent. Transmission 50, aria2 55: more cost memory and bring little."""

    max_peers_total: int = 200
    """Connections of all torrents of a session together. Transmission 200: at two threads each they take
    some 4 MB, and they stay well below the 1,024 handles of a process."""

    listen_port: int = 6881
    """First TCP port tried; BEP 3's own range is 6881-6889. 0 lets the system choose."""

    portmap: bool = False
    """Ask the router to let peers in (UPnP). The command line does; a lesson or a test does not touch the network."""

    portmap_interface: str = ""
    """Address of the interface on which a router is sought; empty for the one that the system chooses."""

    listen_port_tries: int = 10
    """Ports tried upward from `listen_port` before the system chooses: two clients on one machine."""

    connect_timeout: float = 5.0
    """Seconds for the TCP handshake. 5-15 s elsewhere; a dead address must not hold a worker."""

    handshake_timeout: float = 10.0
    """Seconds for the BitTorrent handshake. libtorrent and Mainline 10 s."""

    idle_timeout: float = 120.0
    """Seconds of silence after which a peer is dropped; BEP 3: keep-alives come every two minutes."""

    keep_alive_interval: float = 100.0
    """Seconds of our own silence after which we send a keep-alive; below everybody's 120 s."""

    socket_tick: float = 2.0
    """Seconds a blocking socket call lasts at most, so that every thread sees a stop request."""

    useless_peer_timeout: float = 60.0
    """Seconds without a block either way after which a peer gives its place to an address that waits, when
    all places are taken: else fifty peers that have nothing for us would keep everybody else out."""

    dials_at_once: int = 16
    """Connection attempts under way per torrent; home routers choke on more half-open ones."""

    known_peers: int = 2000
    """Addresses remembered per torrent, so that a hostile tracker cannot fill the memory."""

    redial_delays: tuple[float, ...] = (10.0, 120.0, 900.0, 1800.0, 3600.0, 7200.0)
    """Seconds before the 1st, 2nd ... new attempt at an address that failed. Transmission's ladder."""

    # --- how sockets are opened ------------------------------------------------------------------
    encryption: str = "allow"
    """Message stream encryption: `allow` (dial in plaintext, encrypted where that is hung up on; accept both),
    `prefer` (dial encrypted first; accept both), `require` (RC4 only, both ways) or `off`. As Transmission's
    and libtorrent's settings: RC4 hides from traffic shapers, costs a second of CPU a GiB, and is no secrecy."""

    proxy: str = ""
    """URL of the proxy that carries everything, see `proxy`; empty for none. With one, whatever it cannot carry
    is off: nothing may go past it."""

    proxy_timeout: float = 20.0
    """Seconds for a connection through a proxy, which may itself lead through others: Tor takes up to 15 s."""

    @property
    def allows_direct(self) -> bool:
        """Whether anything may go past a proxy: UDP, multicast, port mapping, listening, looking names up."""
        return not self.proxy

    # --- where peers come from -------------------------------------------------------------------
    pex: bool = True
    """Whether peers of one torrent tell each other of more of them, see `peer_exchange`; never in private torrents."""

    lsd: bool = False
    """Whether we tell our own network which torrents we have, and hear others tell it, see `local_discovery`; never
    of private torrents. The command line turns it on: a library that talks to a network unasked is a surprise."""

    lsd_interfaces: tuple[str, ...] = ()
    """Names of the networks that are told, such as `eth0`; all of them by default."""

    # --- requests --------------------------------------------------------------------------------
    initial_queue_depth: int = 16
    """Requests in flight to a new peer; grows by one a block (slow start, as libtorrent does)."""

    min_queue_depth: int = 8
    """Requests in flight that a working peer never falls below; the guide's 5-10."""

    max_queue_depth: int = 500
    """Requests in flight to one peer at most: 8 MiB. libtorrent 500."""

    max_in_flight: int = 512
    """Requests in flight to all peers with deep pipelines together, shared out among them: 8 MiB. Pieces that
    are under way all at once fall out of the processor's cache before they are hashed: 4 peers with 500 each cost
    14 % more CPU than with 64 each."""

    least_share: int = 64
    """Requests that no peer's share is below: 1 MiB hides 100 ms at 10 MiB/s."""

    default_reqq: int = 250
    """What a peer that does not tell its queue length (BEP 10 `reqq`) is trusted with; libtorrent's
    own default, and Transmission 3 silently drops requests above 512."""

    queue_seconds: float = 3.0
    """Seconds of the peer's own rate to keep requested, where its round trip may need them. libtorrent 3 s."""

    least_queue_seconds: float = 1.0
    """The same where all goes well, beside four times the peer's latency, see `request_pipeline`. Four leechers and a
    slow seed: with 3 s it sent 1.39 copies, with 1 s 1.22, with half a second 1.16; but some senders give a second's
    worth at once."""

    request_timeout: float = 20.0
    """Seconds without one block, with requests in flight, before a peer is snubbed: its blocks go to
    others and its queue falls to 1. libtorrent 20 s, Transmission 25, Mainline 30."""

    takeover_speed_ratio: float = 3.0
    """In the end game a peer this many times faster takes over as many blocks as its queue holds from
    a slow one; otherwise one at a time. rqbit steals at 3x when nothing new is left."""

    random_first_pieces: int = 4
    """Pieces picked at random before rarest first begins: something to trade soon. libtorrent 4."""

    piece_buffer_budget: int = 64 * MIB
    """Bytes of pieces that may be under way at once. Memory is taken when a piece's first block comes,
    so that the usual use is far smaller; without the cap a slow disk would fill the memory."""

    # --- what we serve ---------------------------------------------------------------------------
    reqq: int = 2000
    """Requests of one peer that we queue, advertised in BEP 10. libtorrent and Transmission 2000."""

    upload_slots: int = 4
    """Interested peers unchoked at once, at least. BEP 3: four downloaders."""

    max_upload_slots: int = 20
    """The same on a fast link, see `choker.slots_for`. qBittorrent 20."""

    max_request_length: int = 8 * BLOCK_SIZE
    """Bytes of a block that we serve at most; BEP 3 says that larger requests close the connection,
    and 128 KiB is the largest that old clients sent."""

    max_upload_rate: float = 0.0
    """Bytes of blocks per second that all torrents together give; 0 for no limit."""

    max_download_rate: float = 0.0
    """Bytes per second that all torrents together take; 0 for no limit."""

    # --- the life of a torrent -------------------------------------------------------------------
    housekeeping_interval: float = 1.0
    """Seconds between two rounds of dialling, measuring and timing out."""

    resume_interval: float = 30.0
    """Seconds between two saves of the state file. rain 30 s."""

    # --- trackers --------------------------------------------------------------------------------
    num_want: int = 200
    """Peers asked of a tracker. libtorrent 200."""

    tracker_connect_timeout: float = 10.0
    """Seconds for TCP and TLS to a tracker."""

    tracker_read_timeout: float = 20.0
    """Seconds of silence from a tracker, and twice that for its whole answer."""

    tracker_patience: float = 3.0
    """Seconds without an answer after which the next tracker of the tier is asked as well: most answer within
    one, and a dead one costs up to 15."""

    udp_tracker_timeout: float = 15.0
    """Seconds that an answer over UDP is waited for; BEP 15, whose waits between retries are 2^n times this."""

    tracker_stop_timeout: float = 2.0
    """Seconds that the `stopped` announce may hold up the end of the program. Others allow 5 s; the
    whole stop has 3 s here."""

    min_announce_interval: float = 60.0
    """Seconds below which no tracker is asked again, whatever it says: a typo of 1 would be a flood."""

    max_announce_interval: float = 3600.0
    """Seconds after which a tracker is asked again, whatever it says."""

    # --- web seeds -------------------------------------------------------------------------------
    max_web_seeds: int = 8
    """Web seeds used of one torrent, a thread each. libtorrent 3, aria2 5 connections."""

    web_seed_queue_depth: int = 1024
    """Blocks that a web seed is asked for at once at most: 16 MiB. A round trip of 50 ms between two such
    answers costs a third at 160 MB/s, and less on any slower line."""

    web_seed_timeout: float = 20.0
    """Seconds of silence from a web seed. libtorrent 20 s, aria2 60 s."""

    web_seed_retry_delays: tuple[float, ...] = (2.0, 10.0, 30.0, 120.0, 600.0, 1800.0)
    """Seconds before a web seed that failed once, twice ... in a row is asked again, unless it says itself when.
    libtorrent always 30 s: too long after a hiccup, too short for a server that is down."""

    web_seed_lasting_delay: float = 3600.0
    """Seconds before it is asked again after what will hardly change: a missing file, an answer that is wrong."""

    web_seed_skip: int = MIB
    """Bytes that are read and thrown away at most, in order to come to those that are wanted, where a server
    gives whole files only."""

    # --- the DHT ---------------------------------------------------------------------------------
    dht: bool = False
    """Whether a session takes part in the DHT. The command line turns it on; a program that uses this package,
    or a test, does not speak to strangers unless it says so."""

    dht_bootstrap: tuple[tuple[str, int], ...] | None = None
    """Hosts and ports of DHT nodes to begin at, instead of `DHT_ROUTERS`."""

    dht_read_only: bool = False
    """Whether our DHT node asks and never answers (BEP 43): for a short visit, such as one look-up."""

    # --- threads and files -----------------------------------------------------------------------
    verifier_backlog: int = 4 * MIB
    """Bytes of full pieces that may wait for the verifier thread, and of good ones that may wait to be written.
    Beyond that the peer's own worker verifies, or waits: the memory stays small. Measured against two
    verifiers and an unbounded queue: the same speed with 26 instead of 88 MB. Of good ones 1 MiB is too little
    for a disk that is slow now and then, and 12 MiB are no faster."""

    max_open_files: int = 500
    """File handles of one torrent kept open, if the process may have so many (libtorrent: 500 of all together). With
    fewer handles than files most pieces have to open a file, which takes longer than to write to it."""

    stop_after_idle: float = 0.0
    """Seconds without a byte received after which a download gives up; 0 never (aria2's default)."""


RECEIVE_BUFFER_START = 32 * KIB
"""Bytes a new connection's receive buffer has: an idle peer costs no more than this."""

RECEIVE_BUFFER_MAX = MIB
"""Bytes it grows to when a read fills it: fewer, bigger reads cost less. 128 KiB cost 15 % more, and above
1 MiB nothing is gained."""

MAX_MESSAGE_LENGTH = MIB
"""Bytes of a peer message at most, refused at the prefix before anything is allocated. libtorrent."""

MAX_TORRENT_SIZE = 10 * MIB
"""Bytes of a .torrent file at most. libtorrent."""

MAX_PIECES = 1 << 21
"""Pieces of one torrent at most. libtorrent."""

MAX_FILES = 200_000
"""Files of one torrent at most: more do not fit below `MAX_TORRENT_SIZE` in any useful torrent."""

MAX_TRACKER_RESPONSE = 2 * MIB
"""Bytes of a tracker's answer at most, after decompression: 2,000 peers need 12 KB."""

MAX_TRACKERS = 200
"""Trackers of one torrent that are asked at most: the longest public lists have some 100, and a .torrent could
name a hundred thousand hosts for us to bother."""

MAX_UDP_TRACKER_RESPONSE = 16 * KIB
"""Bytes of a UDP tracker's answer at most: 200 IPv6 peers need 3.6 KB; what is longer is no answer to us."""

DHT_ROUTERS = (
    ("dht.libtorrent.org", 25_401),
    ("dht.transmissionbt.com", 6881),
    ("router.bittorrent.com", 6881),
    ("router.utorrent.com", 6881),
    ("router.bt.ouinet.work", 6881),
)
"""Nodes that show newcomers the way into the public DHT; those of libtorrent, Transmission and qBittorrent."""
