"""Writes API_DOCS.md from the docstrings: `python -m thesis.api_docs`, or `--check` to only compare.

The modules are parsed, not imported, so that the page is the same on every machine. The five spine modules
come first, in the order in which they are read.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "torrent_client"
TARGET = ROOT / "API_DOCS.md"
SPINE = ("torrent_parser", "tracker_client", "peer_connection", "piece_manager", "download_manager")

HEADER = """\
# API reference

Made from the docstrings by `python -m thesis.api_docs`; do not edit. The five modules of the spine come
first, in reading order; ARCHITECTURE.md says how they work together.

## Example: a whole download

```python
from pathlib import Path

from torrent_client.config import Config
from torrent_client.download_options import DownloadOptions
from torrent_client.session import Session
from torrent_client.torrent_parser import TorrentFile

torrent = TorrentFile.from_file("debian.torrent")
with Session(Config()) as session:
    manager = session.add(torrent, DownloadOptions(output=Path("downloads")))
    while not manager.wait(1.0):
        stats = manager.stats()
        print(stats.pieces_done, stats.pieces_total, stats.waiting_for)
    if manager.error:
        raise manager.error
```

## Example: one peer, by hand

```python
from torrent_client.peer_connection import PeerConnection
from torrent_client.protocol.messages import Interested
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import TrackerClient, generate_peer_id

torrent = TorrentFile.from_file("debian.torrent")
our_id = generate_peer_id()
peers = TrackerClient(torrent.announce, torrent.info_hash, our_id, 6881).get_peers(torrent.total_length)
with PeerConnection(peers[0], torrent.info_hash, our_id) as peer:
    peer.connect()
    print(peer.handshake().peer_id.hex())
    peer.send(Interested())
    print(peer.receive())
```
"""


def module_paths() -> list[Path]:
    """Return every module of the package, the spine first, the others by name."""
    spine = [PACKAGE / f"{name}.py" for name in SPINE]
    others = sorted(path for path in PACKAGE.rglob("*.py") if path not in spine)
    return spine + [path for path in others if path.name != "__init__.py"]


def render() -> str:
    """Return the whole page."""
    sections = [HEADER, *("\n".join(_module_lines(path)) for path in module_paths())]
    return "\n\n".join(sections) + "\n"


def _module_lines(path: Path) -> Iterator[str]:
    """Give the lines of one module's section."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    yield f"## `{name}`\n"
    yield _docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _class_lines(node)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield f"\n### `{_signature(node)}`\n"
            yield _docstring(node)


def _class_lines(node: ast.ClassDef) -> Iterator[str]:
    """Give the lines of a class and its public methods."""
    constructor = next((item for item in node.body if _is_method(item, "__init__")), None)
    parameters = f"({_parameters(constructor)})" if isinstance(constructor, ast.FunctionDef) else ""
    yield f"\n### class `{node.name}{parameters}`\n"
    yield _docstring(node)
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
            yield f"\n#### `{node.name}.{_signature(item)}`\n"
            yield _docstring(item)


def _is_method(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == name


def _signature(node: ast.FunctionDef) -> str:
    """Return a function's name, parameters and result."""
    if any(isinstance(decorator, ast.Name) and decorator.id == "property" for decorator in node.decorator_list):
        return f"{node.name}: {ast.unparse(node.returns) if node.returns else ''}"
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({_parameters(node)}){result}"


def _parameters(node: ast.FunctionDef) -> str:
    """Return a function's parameters without `self` and `cls`."""
    text = ast.unparse(node.args)
    for first in ("self", "cls"):
        if text == first or text.startswith(f"{first}, "):
            text = text[len(first) + 2 :]
    return text


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    """Return a docstring as it stands, in a block, so that its pictures keep their shape."""
    text = ast.get_docstring(node) or ""
    return f"```text\n{text}\n```" if "\n" in text else text


def main() -> int:
    """Write the page, or compare it; return the exit code."""
    page = render()
    if "--check" in sys.argv[1:]:
        same = TARGET.exists() and TARGET.read_text(encoding="utf-8") == page
        print("API_DOCS.md is up to date" if same else "API_DOCS.md is old: run python -m thesis.api_docs")
        return 0 if same else 1
    TARGET.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
