"""A student's own tests."""

from torrent_parser import bencode_decode


def test_integers() -> None:
    """An integer."""
    assert bencode_decode(b"i42e") == 42
