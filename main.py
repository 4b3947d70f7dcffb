"""Starts the client: `python main.py FILE.torrent`, or `python main.py --help`."""

import gc

gc.set_threshold(50_000, 20, 20)  # by default Python looks for garbage a hundred times while the modules load

try:
    from torrent_client.cli.main import run

    run()
except KeyboardInterrupt:  # in the first moments, before anybody handles it
    raise SystemExit(130) from None
