"""Starts the client: `python main.py FILE.torrent`, or `python main.py --help`."""

import gc

gc.set_threshold(100_000, 20, 20)  # a start makes half as many objects, and keeps them: no garbage to look for

try:
    from torrent_client.cli.main import run

    run()
except KeyboardInterrupt:  # in the first moments, before anybody handles it
    raise SystemExit(130) from None
