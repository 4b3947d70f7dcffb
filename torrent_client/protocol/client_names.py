"""The name of a peer's client, read from its peer id: `-TR4050-...` is Transmission 4.0.5.0.

Spec: BEP 20 (peer id conventions).
Thread: pure.
Lock: none.
"""

import re
from typing import Final

_AZUREUS: Final = re.compile(rb"-([A-Za-z0-9~]{2})([0-9A-Za-z]{4})-")
_MAINLINE: Final = re.compile(rb"M(\d{1,2})-(\d{1,2})-(\d{1,2})-")
_SHADOW: Final = re.compile(rb"([A-Z])([0-9A-Za-z.]{1,5})-{2,3}")

_NAMES: Final = {
    b"7T": "aTorrent",
    b"A2": "aria2",
    b"AZ": "Vuze",
    b"BC": "BitComet",
    b"BI": "BiglyBT",
    b"BT": "BitTorrent",
    b"DE": "Deluge",
    b"FD": "Free Download Manager",
    b"FW": "FrostWire",
    b"GT": "anacrolix",
    b"KT": "KTorrent",
    b"LT": "libtorrent",
    b"PC": "torrent-client",
    b"PI": "PicoTorrent",
    b"RN": "rain",
    b"TR": "Transmission",
    b"TX": "Tixati",
    b"UM": "uTorrent Mac",
    b"UT": "uTorrent",
    b"WW": "WebTorrent",
    b"XL": "Xunlei",
    b"lt": "rTorrent",
    b"qB": "qBittorrent",
    b"rQ": "rqbit",
}


def client_name(peer_id: bytes) -> str:
    """Return a client's name and version, or the printable beginning of an id that nobody knows.

    Args:
        peer_id: 20 bytes.
    """
    if peer_id.startswith(b"A2-"):  # aria2's own form: A2-1-36-0-
        return f"aria2 {_text(b'.'.join(peer_id[3:].split(b'-')[:3]))}"
    if match := _AZUREUS.match(peer_id):
        code, version = match.groups()
        return f"{_NAMES.get(code, _text(code))} {'.'.join(_text(version))}"
    if match := _MAINLINE.match(peer_id):
        return f"Mainline {_text(b'.'.join(match.groups()))}"
    if match := _SHADOW.match(peer_id):
        code, version = match.groups()
        return f"{_text(code)} {_text(version)}"
    return _text(peer_id[:8])


def _text(data: bytes) -> str:
    """Return printable ASCII, other bytes as dots: the id is the peer's, the terminal is ours."""
    return "".join(chr(byte) if 32 < byte < 127 else "." for byte in data)
