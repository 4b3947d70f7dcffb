"""A BitTorrent client in Python: thread per peer, blocking sockets, standard-library style.

Read the five spine modules in this order: `torrent_parser`, `tracker_client`, `peer_connection`,
`piece_manager`, `download_manager`. ARCHITECTURE.md leads through them.

Thread: none.
Lock: none.
"""

__version__ = "0.1.0"
