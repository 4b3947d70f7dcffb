"""The nodes that we know: many that are near to us, a few of every distance farther away.

    bits in common with our id     0        1        2        3 or more
                                [ 8 nodes | 8 nodes | 8 nodes | 8 nodes ]     the last bucket is split when it is full
                                  spares    spares    spares    spares        and takes all who are nearer

    good           it answered in the last 15 minutes, or did once and asked us something since
    questionable   it was silent for longer: it is asked again before somebody takes its place
    bad            it did not answer twice in a row: a spare replaces it, the next newcomer at the latest

Only who has answered us gets in, for anybody can write any address on a datagram. An address has one place in
the table, and so has a host of the internet, whatever its port: one machine must not fill a bucket.

Spec: BEP 5 (routing table).
Thread: the DHT's.
Lock: none.
"""

import random
from collections.abc import Callable, Iterator
from typing import Final

from torrent_client.dht.node_id import common_bits, distance, is_public, random_id
from torrent_client.protocol.krpc import Endpoint, NodeInfo

BUCKET_SIZE: Final = 8
"""Nodes of a bucket (K); BEP 5."""

GOOD_FOR: Final = 900.0
"""Seconds that a node is good after it was heard of; BEP 5."""

FAILURES_TO_BE_BAD: Final = 2
"""Queries without an answer in a row that make a node bad; BEP 5 suggests to try once more."""

REFRESH_AFTER: Final = 900.0
"""Seconds without a change after which a bucket is refreshed; BEP 5."""


class KnownNode:
    """A node in the table.

    Attributes:
        info: its id and where it is.
        heard_at: when it answered or asked last, in monotonic seconds.
        failures: our queries since that it left without an answer.
    """

    __slots__ = ("failures", "heard_at", "info")

    def __init__(self, info: NodeInfo, heard_at: float) -> None:
        """Begin without failures."""
        self.info = info
        self.heard_at = heard_at
        self.failures = 0

    @property
    def is_bad(self) -> bool:
        """Whether it has left too much without an answer."""
        return self.failures >= FAILURES_TO_BE_BAD

    def is_good(self, now: float) -> bool:
        """Tell whether it is known to be alive."""
        return not self.failures and now - self.heard_at < GOOD_FOR


class _Bucket:
    """Nodes of one distance, those heard of first at the front."""

    def __init__(self, changed_at: float) -> None:
        self.changed_at = changed_at
        self.nodes: list[KnownNode] = []
        self.spares: list[KnownNode] = []

    @property
    def is_full(self) -> bool:
        return len(self.nodes) >= BUCKET_SIZE


class RoutingTable:
    """The nodes of one address family.

    Args:
        own_id: 20 bytes.
        clock: monotonic seconds.
    """

    def __init__(self, own_id: bytes, clock: Callable[[], float]) -> None:
        """Begin with one empty bucket."""
        self.own_id = own_id
        self._clock = clock
        self._buckets = [_Bucket(clock())]  # bucket i: i bits in common with us; the last one: that many or more
        self._places: dict[Endpoint | str, KnownNode] = {}  # by address, and by host on the internet

    def __len__(self) -> int:
        """Return how many nodes there are, without the spares."""
        return sum(len(bucket.nodes) for bucket in self._buckets)

    def __iter__(self) -> Iterator[KnownNode]:
        """Give every node, without the spares, the farthest first."""
        for bucket in self._buckets:
            yield from bucket.nodes

    def answered(self, info: NodeInfo) -> bool:
        """Note that a node has answered a query of ours; tell whether it is new in the table.

        A known node under another id has begun anew and takes its new place. Another address for a known id
        is believed only when the node at the first one is bad.
        """
        if info.node_id == self.own_id:
            return False
        for place in _places(info):
            other = self._places.get(place)
            if other and other.info != info:
                if place != info.endpoint and not other.is_bad:
                    return False
                self._remove(other)
        bucket = self._bucket(info.node_id)
        for node in (*bucket.nodes, *bucket.spares):
            if node.info.node_id == info.node_id:
                if node.info.endpoint == info.endpoint:
                    self._refresh(bucket, node)
                    return False
                if not node.is_bad:
                    return False
                self._remove(node)
        return self._insert(KnownNode(info, self._clock()))

    def asked_us(self, info: NodeInfo) -> bool:
        """Note that a node has asked us something; False for one that is not known, and that there is room for."""
        node = self._places.get(info.endpoint)
        if node:
            if node.info == info and not node.failures:
                node.heard_at = self._clock()
            return True
        bucket = self._bucket(info.node_id)
        return bucket.is_full and not self._can_split(bucket) and not any(node.is_bad for node in bucket.nodes)

    def failed(self, info: NodeInfo) -> None:
        """Note that a node did not answer."""
        node = self._places.get(info.endpoint)
        if not node or node.info != info:
            return
        node.failures += 1
        bucket = self._bucket(info.node_id)
        if node.is_bad and (node not in bucket.nodes or bucket.spares):
            self._remove(node)
            if not bucket.is_full and bucket.spares:
                bucket.nodes.append(bucket.spares.pop())  # the one heard of last

    def closest(self, target: bytes, count: int = BUCKET_SIZE) -> list[NodeInfo]:
        """Return the nodes nearest to a target that are not bad, the nearest first; questionable ones if need be."""
        now = self._clock()
        nodes = [node for node in self if not node.is_bad]
        good = [node.info for node in nodes if node.is_good(now)]
        doubtful = [node.info for node in nodes if not node.is_good(now)]
        for infos in (good, doubtful):
            infos.sort(key=lambda info: distance(info.node_id, target))
        return (good + doubtful)[:count]

    def doubtful(self) -> list[NodeInfo]:
        """Return the node of each bucket that should be asked whether it is still there, if there is one.

        The one that was heard of the longest ago; a bucket with nobody waiting for a place is left to the refresh.
        """
        now = self._clock()
        found = []
        for bucket in self._buckets:
            nodes = [node for node in bucket.nodes if not node.is_good(now)]
            if nodes and (bucket.spares or any(node.failures for node in nodes)):
                found.append(min(nodes, key=lambda node: node.heard_at).info)
        return found

    def move_to(self, own_id: bytes) -> None:
        """Take another id as our own, and sort the nodes anew."""
        nodes = [node for bucket in self._buckets for node in (*bucket.nodes, *bucket.spares)]
        self.own_id = own_id
        self._buckets = [_Bucket(self._clock())]
        self._places.clear()
        for node in nodes:
            self._insert(node)

    def stale(self, rng: random.Random, after: float = REFRESH_AFTER) -> list[bytes]:
        """Return an id to look for in each bucket that was not changed for so long; it counts as changed now."""
        now = self._clock()
        targets = []
        for bits, bucket in enumerate(self._buckets):
            if now - bucket.changed_at >= after:
                bucket.changed_at = now
                targets.append(random_id(rng, self.own_id, bits))
        return targets

    def _insert(self, node: KnownNode) -> bool:
        """Put a node into its bucket, or among its spares."""
        bucket = self._bucket(node.info.node_id)
        while bucket.is_full and self._can_split(bucket):
            self._split()
            bucket = self._bucket(node.info.node_id)
        bad = next((known for known in bucket.nodes if known.is_bad), None)
        if bad:
            self._remove(bad)
        bucket.changed_at = self._clock()
        if bucket.is_full:
            if len(bucket.spares) >= BUCKET_SIZE:
                self._remove(bucket.spares[0])
            bucket.spares.append(node)
        else:
            bucket.nodes.append(node)
        for place in _places(node.info):
            self._places[place] = node
        return node in bucket.nodes

    def _refresh(self, bucket: _Bucket, node: KnownNode) -> None:
        """Note that a node is alive."""
        node.failures = 0
        node.heard_at = bucket.changed_at = self._clock()

    def _can_split(self, bucket: _Bucket) -> bool:
        """Tell whether our own id lies in a bucket's range."""
        return bucket is self._buckets[-1] and len(self._buckets) < 160

    def _split(self) -> None:
        """Move those of the last bucket that are nearer into a new one."""
        last = self._buckets[-1]
        bits = len(self._buckets) - 1
        new = _Bucket(last.changed_at)
        for old_list, new_list in ((last.nodes, new.nodes), (last.spares, new.spares)):
            new_list += [node for node in old_list if common_bits(node.info.node_id, self.own_id) > bits]
            old_list[:] = [node for node in old_list if node not in new_list]
        self._buckets.append(new)

    def _bucket(self, node_id: bytes) -> _Bucket:
        """Return the bucket in whose range an id lies."""
        return self._buckets[min(common_bits(node_id, self.own_id), len(self._buckets) - 1)]

    def _remove(self, node: KnownNode) -> None:
        """Forget a node."""
        bucket = self._bucket(node.info.node_id)
        for nodes in (bucket.nodes, bucket.spares):
            if node in nodes:
                nodes.remove(node)
        for place in _places(node.info):
            self._places.pop(place, None)


def _places(info: NodeInfo) -> tuple[Endpoint | str, ...]:
    """Return what a node has for itself: its address, and its host if that is on the internet."""
    return (info.endpoint, info.endpoint.host) if is_public(info.endpoint.host) else (info.endpoint,)
