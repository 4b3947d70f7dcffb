"""Our client with other numbers: ``variant.py NAME=VALUE ... -- ARGUMENTS`` is ``main.py ARGUMENTS`` with them.

The names are fields of `Config`, all of them whole numbers here. So a benchmark can measure what a number is worth
without an option for it that no user needs.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from torrent_client.cli.main import main
from torrent_client.config import Config


def override(changes: dict[str, int]) -> None:
    """Change the defaults of `Config`, before anybody makes one."""
    if unknown := changes.keys() - set(Config._fields):
        sys.exit(f"no such numbers: {', '.join(sorted(unknown))}")
    Config.__new__.__defaults__ = tuple((Config._field_defaults | changes).values())


if __name__ == "__main__":
    end = sys.argv.index("--")
    override({name: int(value) for name, _, value in (word.partition("=") for word in sys.argv[1:end])})
    sys.exit(main(sys.argv[end + 1 :]))
