"""The verdict follows from the findings alone."""

import json

import pytest

from torrent_client.doctor.diagnosis import Cause, Finding, Outcome, Supply, conclude

ALL = 0b1111


def peer(supply: Supply, pieces: int = ALL, result: str = "gave a piece", *, connected: bool = True) -> Finding:
    """Return a finding about a peer."""
    facts = {"result": result, "connected": connected}
    return Finding("peer", "192.0.2.1:1", Outcome.OK, "", supply=supply, pieces=pieces, facts=facts)


def lost(result: str) -> Finding:
    """Return a finding about a peer that was not reached."""
    return peer(Supply.NOTHING, 0, result, connected=False)


def source(topic: str, outcome: Outcome) -> Finding:
    """Return a finding about where peers come from."""
    return Finding(topic, "", outcome, "it is so")


def test_peers_that_give_are_enough() -> None:
    verdict = conclude([peer(Supply.GIVES), peer(Supply.WAITS), lost("refused")], ALL)
    assert verdict.cause is Cause.WORKS
    assert verdict.text == "you would download: 2 peers have pieces for you, 1 gave some"


def test_a_web_seed_is_enough() -> None:
    seed = Finding("web seed", "http://x", Outcome.OK, "", supply=Supply.GIVES, pieces=ALL)
    verdict = conclude([seed, lost("refused")], ALL)
    assert (verdict.cause, verdict.text) == (Cause.WORKS, "you would download: 1 web seed has pieces for you")


def test_pieces_of_several_peers_add_up() -> None:
    assert conclude([peer(Supply.GIVES, 0b0011), peer(Supply.GIVES, 0b1100)], ALL).cause is Cause.WORKS


def test_what_nobody_has_stops_the_download() -> None:
    verdict = conclude([peer(Supply.GIVES, 0b0011), peer(Supply.GIVES, 0b0001)], ALL)
    assert verdict.cause is Cause.NOBODY
    assert "you would get 50 % and then wait" in verdict.text


def test_nearly_all_is_not_all() -> None:
    pieces = (1 << 1000) - 1
    assert "99 %" in conclude([peer(Supply.GIVES, pieces >> 1)], pieces).text


def test_who_has_pieces_and_chokes_lets_us_in_some_day() -> None:
    verdict = conclude([peer(Supply.WAITS)], ALL)
    assert verdict.cause is Cause.WORKS
    assert "once it is your turn" in verdict.text


def test_who_stalls_does_not_count() -> None:
    verdict = conclude([peer(Supply.STALLS)], ALL)
    assert verdict.cause is Cause.NOBODY
    assert "hardly" in verdict.text


@pytest.mark.parametrize(("topic", "cause"), [("torrent", Cause.TORRENT), ("disk", Cause.DISK)])
def test_no_peer_helps_against_a_bad_torrent_or_disk(topic: str, cause: Cause) -> None:
    verdict = conclude([peer(Supply.GIVES), source(topic, Outcome.BAD)], ALL)
    assert verdict.cause is cause
    assert verdict.text.endswith("it is so")


def test_what_became_of_the_peers_is_counted() -> None:
    verdict = conclude([lost("timed out"), lost("refused"), lost("timed out")], ALL)
    assert verdict.text == "nobody can be reached: 3 peers called (2 timed out, 1 refused)"
    verdict = conclude([lost("timed out"), peer(Supply.NOTHING, 0, "has nothing")], ALL)
    assert verdict.text == "nobody has the file for you: 2 peers called (1 timed out, 1 has nothing)"
    assert verdict.cause is Cause.NOBODY


@pytest.mark.parametrize(
    ("tracker", "dht", "reason"),
    [
        (Outcome.BAD, Outcome.BAD, "no tracker answered and the DHT could not be reached"),
        (Outcome.NOTE, Outcome.NOTE, "the trackers know nobody else and the DHT knows no peers"),
        (Outcome.NOTE, Outcome.OFF, "the trackers know nobody else"),
        (None, Outcome.OFF, "there is nothing to find peers with"),
    ],
)
def test_where_nobody_is_known_the_sources_say_why(tracker: Outcome | None, dht: Outcome, reason: str) -> None:
    findings = [source("dht", dht)] + ([source("tracker", tracker)] if tracker else [])
    assert conclude(findings, ALL).text == f"nobody has the file: {reason}"


def test_to_have_met_ourselves_is_to_have_met_nobody() -> None:
    """Some trackers tell us of us."""
    us = Finding("peer", "192.0.2.1:1", Outcome.OFF, "", facts={"result": "ourselves", "connected": True})
    assert (
        conclude([us, source("tracker", Outcome.NOTE)], ALL).text
        == "nobody has the file: the trackers know nobody else"
    )


def test_of_a_magnet_link_the_metadata_is_the_question() -> None:
    verdict = conclude([peer(Supply.GIVES, 1)], 1, of_magnet=True)
    assert verdict.text == "you would download: 1 peer has the metadata for you"
    assert "the metadata" in conclude([lost("refused"), peer(Supply.NOTHING, 0)], 1, of_magnet=True).text


def test_an_empty_torrent_is_done_at_once() -> None:
    assert conclude([], 0).cause is Cause.WORKS


def test_a_finding_becomes_one_object_without_its_sets_of_pieces() -> None:
    value = json.loads(json.dumps(peer(Supply.WAITS, result="choked us").as_values()))
    assert (value["type"], value["topic"], value["supply"]) == ("finding", "peer", "waits")
    assert value["facts"]["result"] == "choked us"
    assert "pieces" not in value
