"""How deep a peer's pipeline is: slow start, three seconds of its rate, its own limit, and snubbing."""

import math

import pytest

from torrent_client.config import BLOCK_SIZE, Config
from torrent_client.request_pipeline import RequestPipeline

CONFIG = Config(initial_queue_depth=16, min_queue_depth=8, max_queue_depth=500, default_reqq=250, queue_seconds=3.0)


def steady(rate: float, config: Config = CONFIG, request_queue: int = 500) -> RequestPipeline:
    """Return a pipeline whose slow start has ended at a rate in bytes per second."""
    pipeline = RequestPipeline(config)
    pipeline.peer_accepts(request_queue)
    pipeline.measure(rate)
    pipeline.measure(rate)
    return pipeline


def test_slow_start_adds_a_request_for_each_block() -> None:
    """The depth doubles with every round trip: as many blocks come as were asked for."""
    pipeline = RequestPipeline(CONFIG)
    assert pipeline.depth == 16
    pipeline.received(1)
    assert pipeline.depth == 17
    pipeline.received(17)
    assert pipeline.depth == 34


def test_a_peer_that_names_no_limit_is_trusted_with_the_default() -> None:
    """More than that some clients drop without a word."""
    pipeline = RequestPipeline(CONFIG)
    pipeline.received(10_000)
    assert pipeline.depth == 250


@pytest.mark.parametrize(("request_queue", "limit"), [(1, 1), (100, 100), (400, 400), (2000, 500)])
def test_a_peers_own_limit_counts_up_to_ours(request_queue: int, limit: int) -> None:
    """It lowers the depth at once, and lets it grow above the default."""
    pipeline = RequestPipeline(CONFIG)
    pipeline.peer_accepts(request_queue)
    assert pipeline.depth == min(16, limit)
    pipeline.received(10_000)
    assert pipeline.depth == limit


def test_slow_start_goes_on_while_the_rate_grows_by_a_tenth() -> None:
    """A second that brings less growth than that ends it; from then on blocks add nothing."""
    pipeline = RequestPipeline(CONFIG)
    rate = 100 * BLOCK_SIZE
    pipeline.measure(rate)
    pipeline.measure(1.11 * rate)
    pipeline.received(1)
    assert pipeline.depth == 17
    pipeline.measure(1.2 * rate)
    depth = pipeline.depth
    assert depth == 250  # three seconds of 120 blocks are 360
    pipeline.measure(20 * BLOCK_SIZE)
    assert pipeline.depth == 60
    pipeline.received(100)
    assert pipeline.depth == 60


@pytest.mark.parametrize(
    ("blocks_per_second", "depth"), [(0.1, 8), (2.5, 8), (3, 9), (10, 30), (50.5, 151), (100, 300), (1000, 500)]
)
def test_a_steady_peer_gets_three_seconds_of_its_rate(blocks_per_second: float, depth: int) -> None:
    """Never less than the minimum, never more than the limit."""
    assert steady(blocks_per_second * BLOCK_SIZE).depth == depth


@pytest.mark.parametrize(
    ("latency", "depth"), [(0.0, 100), (0.1, 140), (0.25, 200), (0.5, 300), (2.0, 300), (math.inf, 300)]
)
def test_where_the_latency_is_known_the_queue_is_shorter(latency: float, depth: int) -> None:
    """A second and four times the latency, but never more than three seconds."""
    pipeline = steady(100 * BLOCK_SIZE)
    pipeline.measure(100 * BLOCK_SIZE, latency)
    assert pipeline.depth == depth


def test_a_queue_that_is_too_short_does_not_make_a_peer_slower_and_slower() -> None:
    """The way has become longer than the queue, and the rate is what the queue lets through."""
    pipeline = steady(100 * BLOCK_SIZE)
    round_trip = 1.5
    rates = []
    for _ in range(60):
        rates.append(min(100.0, pipeline.depth / round_trip))
        pipeline.measure(rates[-1] * BLOCK_SIZE, 0.02)
    assert sum(rates) / len(rates) > 70


def test_a_rate_that_has_fallen_for_good_becomes_the_usual_one() -> None:
    """The queue is long at first, and short again when the better times are forgotten."""
    pipeline = steady(100 * BLOCK_SIZE)
    depths = []
    for _ in range(30):
        pipeline.measure(50 * BLOCK_SIZE, 0.0)
        depths.append(pipeline.depth)
    assert depths[0] == 150
    assert depths[-1] == 50


def test_a_peers_limit_is_below_the_minimum_if_it_says_so() -> None:
    """A peer that queues three requests is not sent eight."""
    assert steady(100 * BLOCK_SIZE, request_queue=3).depth == 3


def test_the_depth_follows_the_rate() -> None:
    """Up and down, second by second."""
    pipeline = steady(10 * BLOCK_SIZE)
    for blocks, depth in ((20, 60), (5, 15), (40, 120)):
        pipeline.measure(blocks * BLOCK_SIZE)
        assert pipeline.depth == depth


def test_a_second_without_a_byte_says_nothing() -> None:
    """A pause is the stall timer's business; it neither ends slow start nor empties the pipeline."""
    pipeline = RequestPipeline(CONFIG)
    pipeline.measure(100 * BLOCK_SIZE)
    pipeline.measure(0)
    pipeline.received(1)
    assert pipeline.depth == 17
    busy = steady(10 * BLOCK_SIZE)
    busy.measure(0)
    assert busy.depth == 30


def test_a_snubbed_peer_is_asked_for_one_block_until_something_comes() -> None:
    """Whatever the last second brought; then it starts again from the beginning."""
    pipeline = steady(10 * BLOCK_SIZE)
    pipeline.snub()
    assert pipeline.snubbed
    assert pipeline.depth == 1
    pipeline.measure(1000 * BLOCK_SIZE)
    assert pipeline.depth == 1
    pipeline.received(1)
    assert not pipeline.snubbed
    assert pipeline.depth == 17
    pipeline.measure(1 * BLOCK_SIZE)  # the rate before the pause does not count: slow start goes on
    pipeline.received(3)
    assert pipeline.depth == 20


def test_a_snubbed_peer_that_comes_back_keeps_its_own_limit() -> None:
    """Starting again does not forget what the peer said."""
    pipeline = steady(10 * BLOCK_SIZE, request_queue=5)
    pipeline.snub()
    pipeline.received(1)
    assert pipeline.depth == 5


def test_every_number_comes_from_the_config() -> None:
    """Another configuration gives other depths."""
    config = CONFIG._replace(initial_queue_depth=4, min_queue_depth=2, max_queue_depth=10, queue_seconds=1.0)
    assert RequestPipeline(config).depth == 4
    assert steady(1 * BLOCK_SIZE, config).depth == 2
    assert steady(7 * BLOCK_SIZE, config).depth == 7
    assert steady(70 * BLOCK_SIZE, config).depth == 10
