"""Starts the client: `python main.py FILE.torrent`, or `python main.py --help`."""

try:
    from torrent_client.cli.main import run

    run()
except KeyboardInterrupt:  # in the first moments, before anybody handles it
    raise SystemExit(130) from None
