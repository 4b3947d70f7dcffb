"""Run one command and write what it cost, as JSON: a small parent, so that the figures are the child's own.

A child's ``ru_maxrss`` starts at its parent's size at the time of the fork (Linux keeps it across exec), so
a large parent would show as the peak of every small client. This one runs with ``python -I -S``, about 9 MB,
and imports nothing to speak of. A SIGTERM sent to the process group ends the child, not this.

usage: launch.py RESULT.json COMMAND...
"""

import json
import os
import signal
import sys
import time


def main() -> None:
    """Run the command, wait for it and its reaped descendants, write the measurement."""
    result, command = sys.argv[1], sys.argv[2:]
    signal.signal(signal.SIGTERM, lambda *_: None)  # a handler, unlike SIG_IGN, does not outlive exec
    clock, start = time.time(), time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    measured = {
        "started": clock,
        "wall": time.monotonic() - start,
        "user": usage.ru_utime,
        "system": usage.ru_stime,
        "peak_rss": usage.ru_maxrss * 1024,
        "status": os.waitstatus_to_exitcode(status),
    }
    with open(result, "w", encoding="ascii") as file:
        json.dump(measured, file)


if __name__ == "__main__":
    main()
