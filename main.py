"""Starts the client: `python main.py FILE.torrent`, or `python main.py --help`."""

from torrent_client.cli.main import run

run()
