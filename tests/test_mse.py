"""The bytes of message stream encryption: both sides come to the same secret, and nonsense is refused."""

from hashlib import sha1

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torrent_client.errors import HandshakeError
from torrent_client.protocol import mse
from torrent_client.protocol.mse import Crypto

HASH = bytes(range(20))
EITHER = Crypto.PLAINTEXT | Crypto.RC4
PRIVATE = st.integers(min_value=1, max_value=2**mse.PRIVATE_KEY_BITS - 1)


# --- keys -------------------------------------------------------------------------------------------------


@given(PRIVATE, PRIVATE)
def test_both_sides_come_to_the_same_secret(ours: int, theirs: int) -> None:
    """From a private key each and the other's public one, 96 bytes all."""
    secret = mse.shared_secret(ours, mse.public_key(theirs))
    assert secret == mse.shared_secret(theirs, mse.public_key(ours))
    assert len(secret) == len(mse.public_key(ours)) == mse.KEY_LENGTH


def test_the_group_is_that_of_the_specification() -> None:
    """Small exponents are powers of two, and the prime is the 768-bit one of Oakley's first group, but for its end."""
    assert int.from_bytes(mse.public_key(1), "big") == 2
    assert int.from_bytes(mse.public_key(767), "big") == 2**767
    assert int.from_bytes(mse.public_key(768), "big") == 2**768 - mse._PRIME
    assert f"{mse._PRIME:x}".startswith("ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74")
    assert pow(3, mse._PRIME - 1, mse._PRIME) == 1  # as for every prime


@pytest.mark.parametrize("number", [0, 1, mse._PRIME - 1, mse._PRIME, 2**768 - 1])
def test_keys_that_would_give_the_secret_away_are_refused(number: int) -> None:
    """With those everybody on the way would know it."""
    with pytest.raises(HandshakeError, match="public key"):
        mse.shared_secret(5, number.to_bytes(mse.KEY_LENGTH, "big"))


def test_the_marks_and_keys_are_hashes_of_the_secret_and_the_torrent() -> None:
    """As the specification names them."""
    secret = mse.shared_secret(7, mse.public_key(9))
    assert mse.secret_mark(secret) == sha1(b"req1" + secret).digest()
    assert mse.torrent_mark(HASH) == sha1(b"req2" + HASH).digest()
    assert mse.stream_keys(secret, HASH) == (
        sha1(b"keyA" + secret + HASH).digest(),
        sha1(b"keyB" + secret + HASH).digest(),
    )


@given(st.binary(min_size=96, max_size=96))
def test_a_torrents_mark_is_found_behind_its_mask(secret: bytes) -> None:
    """By who has the secret; the mask hides it from all others."""
    hidden = mse.mask(mse.torrent_mark(HASH), secret)
    assert hidden != mse.torrent_mark(HASH)
    assert mse.mask(hidden, secret) == mse.torrent_mark(HASH)


# --- fields -----------------------------------------------------------------------------------------------


@given(
    st.sampled_from([Crypto.PLAINTEXT, Crypto.RC4, EITHER]),
    st.binary(max_size=mse.MAX_PADDING),
    st.binary(max_size=0xFFFF),
)
def test_an_offer_is_read_as_it_was_written(provides: Crypto, padding: bytes, initial: bytes) -> None:
    """Field by field, at the lengths that are told."""
    data = mse.encode_offer(provides, padding, initial)
    assert mse.decode_offer(data[: mse.OFFER_LENGTH]) == (provides, len(padding))
    rest = data[mse.OFFER_LENGTH + len(padding) :]
    assert mse.decode_length(rest[: mse.LENGTH_LENGTH]) == len(initial)
    assert rest[mse.LENGTH_LENGTH :] == initial


@given(st.sampled_from([Crypto.PLAINTEXT, Crypto.RC4]), st.binary(max_size=mse.MAX_PADDING))
def test_an_answer_is_read_as_it_was_written(selected: Crypto, padding: bytes) -> None:
    """After the eight zeros that say where it begins."""
    data = mse.encode_answer(selected, padding)
    assert data.startswith(mse.VERIFICATION)
    assert mse.decode_answer(data[8 : 8 + mse.ANSWER_LENGTH], EITHER) == (selected, len(padding))


@given(st.binary(min_size=mse.OFFER_LENGTH, max_size=mse.OFFER_LENGTH))
def test_any_bytes_are_an_offer_or_the_one_error(data: bytes) -> None:
    """What was encrypted with another key is noise."""
    try:
        provided, length = mse.decode_offer(data)
    except HandshakeError:
        return
    assert provided in (Crypto(0), Crypto.PLAINTEXT, Crypto.RC4, EITHER)
    assert length <= mse.MAX_PADDING


@given(st.binary(min_size=mse.ANSWER_LENGTH, max_size=mse.ANSWER_LENGTH))
def test_any_bytes_are_an_answer_or_the_one_error(data: bytes) -> None:
    """As with offers."""
    try:
        selected, length = mse.decode_answer(data, EITHER)
    except HandshakeError:
        return
    assert selected in (Crypto.PLAINTEXT, Crypto.RC4)
    assert length <= mse.MAX_PADDING


def test_bits_of_later_versions_are_ignored_in_an_offer() -> None:
    """And what we know is taken."""
    assert mse.decode_offer(bytes(8) + b"\xff\xff\xff\xfe" + b"\0\1") == (Crypto.RC4, 1)


def test_an_offer_with_a_long_padding_is_refused() -> None:
    """513 bytes are not what any client sends."""
    with pytest.raises(HandshakeError, match="a padding of 513 bytes"):
        mse.decode_offer(bytes(8) + b"\0\0\0\2" + b"\2\1")


@pytest.mark.parametrize("selected", [0, 1, 3, 4, 0xFFFFFFFF])
def test_an_answer_that_was_not_offered_is_refused(selected: int) -> None:
    """Above all plaintext where RC4 is required."""
    with pytest.raises(HandshakeError, match="was not offered"):
        mse.decode_answer(selected.to_bytes(4, "big") + b"\0\0", Crypto.RC4)


def test_an_answer_with_a_long_padding_is_refused() -> None:
    """As an offer is."""
    with pytest.raises(HandshakeError, match="a padding of 65535 bytes"):
        mse.decode_answer(b"\0\0\0\2\xff\xff", EITHER)


def test_what_suits_both_is_selected() -> None:
    """The preferred one if there is a choice."""
    assert mse.select(EITHER, EITHER, Crypto.RC4) is Crypto.RC4
    assert mse.select(EITHER, EITHER, Crypto.PLAINTEXT) is Crypto.PLAINTEXT
    assert mse.select(Crypto.PLAINTEXT, EITHER, Crypto.RC4) is Crypto.PLAINTEXT
    for provided in (Crypto.PLAINTEXT, Crypto(0)):
        with pytest.raises(HandshakeError, match="no encryption that we accept"):
            mse.select(provided, Crypto.RC4, Crypto.RC4)


# --- the search for a mark --------------------------------------------------------------------------------


@given(st.text("ab", max_size=30), st.text("ab", min_size=1, max_size=6), st.text("ab", max_size=10))
def test_a_mark_is_found_without_reading_past_it(before: str, mark: str, after: str) -> None:
    """Whatever stands before it, even parts of itself: the search stops exactly behind its first appearance."""
    stream = (before + mark + after).encode()
    seen = b""
    while missing := mse.bytes_until(mark.encode(), seen):
        seen += stream[len(seen) : len(seen) + missing]
    assert len(seen) == stream.index(mark.encode()) + len(mark)
