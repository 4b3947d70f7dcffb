"""The rules of ARCHITECTURE.md, checked on the source itself.

Floors, purity, who locks what, the lines that every module's docstring has, and sizes.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "torrent_client"

_ROWS = re.findall(r"^\| (\d) \| \**`([^`]+)`", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE)
FLOORS = [[name.replace("/", ".") for floor, name in _ROWS if int(floor) == number] for number in range(6)]
"""The modules, lowest floor first, as ARCHITECTURE.md has them. A module may import what stands before it."""

ORDER = [module for floor in FLOORS for module in floor]
PACKAGES = tuple(f"torrent_client{folder}" for folder in ("", ".protocol", ".dht", ".doctor", ".cli"))

_IMPURE = """
asyncio concurrent ctypes datetime fcntl glob http io locale logging mmap multiprocessing os pathlib platform queue
random requests secrets select selectors shutil signal socket ssl subprocess sys tempfile threading time urllib uuid
"""
IMPURE = frozenset(_IMPURE.split())
PURE_IMPORTS_FROM = ("errors", "config", "text", "protocol")

NO_SPEC = {
    "config": "its numbers come from many places, and each one says from where",
    "errors": "exceptions are not specified anywhere",
}

MAX_MODULE_LINES = 650
MAX_FUNCTION_LINES = 60
LONGER = {
    "download_manager.DownloadManager.__init__": 80,  # puts all parts together, one after the other
}
"""What may be longer, and how long. A limit that is no longer needed fails as well."""


def path_of(module: str) -> Path:
    """Return the file of a module, named without `torrent_client.`."""
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def docstring_of(module: str) -> str:
    """Return a module's docstring."""
    return ast.get_docstring(tree_of(path_of(module))) or ""


def all_modules() -> set[str]:
    """Return the modules that there are, without the packages' own."""
    files = {path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")}
    return {".".join(file.parts) for file in files if file.name != "__init__"}


def imports_of(path: Path) -> Iterator[str]:
    """Give the full name of everything that a file imports, at the top or in a function."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def own_imports(module: str) -> set[str]:
    """Return the modules of ours that a module imports; what is in no module, such as the version, is left out."""
    names = [name.removeprefix("torrent_client.") for name in imports_of(path_of(module)) if is_ours(name)]
    return {other for other in all_modules() for name in names if name == other or name.startswith(f"{other}.")}


def is_ours(name: str) -> bool:
    """Tell whether an imported name is from this package."""
    return name.startswith("torrent_client.")


# --- floors -----------------------------------------------------------------------------------------------


def test_every_module_has_its_place() -> None:
    """A new module is put on a floor, and one that is gone leaves it."""
    assert sorted(ORDER) == sorted(all_modules())


@pytest.mark.parametrize("module", ORDER)
def test_imports_only_point_down(module: str) -> None:
    """A module knows only what stands before it in the table: it can be read, and tested, without the rest."""
    above = own_imports(module) - set(ORDER[: ORDER.index(module)])
    assert not above, f"{module} imports {sorted(above)}, which stand above it"


def test_packages_import_nothing_of_ours() -> None:
    """To import one module must not mean to import all."""
    for package in PACKAGES:
        path = ROOT.joinpath(*package.split("."), "__init__.py")
        assert not [name for name in imports_of(path) if is_ours(name)]


def test_the_table_goes_from_floor_to_floor() -> None:
    """A row in the wrong place would move a module to another floor than its number says."""
    numbers = [int(floor) for floor, _ in _ROWS]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(len(FLOORS)))


# --- purity -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [module for module in ORDER if module.startswith("protocol.")])
def test_protocol_is_pure(module: str) -> None:
    """Bytes to values and back: no socket, clock, thread, file or chance, and nobody who has them."""
    for name in imports_of(path_of(module)):
        assert name.split(".")[0] not in IMPURE, f"{module} imports {name}"
        if is_ours(name):
            assert name.split(".")[1] in PURE_IMPORTS_FROM, f"{module} imports {name}"
    calls = {called(node) for node in ast.walk(tree_of(path_of(module)))}
    assert not calls & {"open", "print", "input", "exec", "eval", "__import__"}


def called(node: ast.AST) -> str | None:
    """Return the name of what a call calls, without what stands before its last dot; None for what is no call."""
    if not isinstance(node, ast.Call):
        return None
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)


# --- the proxy --------------------------------------------------------------------------------------------

_OPENS_SOCKETS = re.compile(
    r"SOCK_DGRAM|create_connection|create_server|HTTPServer|sock[.]connect\(|^ *import (requests|miniupnpc)",
    re.MULTILINE,
)
_KNOWS_OF_THE_PROXY = re.compile(r"allows_direct|torrent_client[.]proxy import")

NOT_BEHIND_A_PROXY = {
    "local_tracker": "serves the demo and the tests",
    "listener": "a session behind a proxy has none",
    "misbehaving_peers": "is for lessons on this machine, and calls nobody",
    "port_mapping": "is for the listener's port",
}
"""Modules that open sockets without a thought of the proxy, and why they may."""


@pytest.mark.parametrize("module", ORDER)
def test_who_opens_a_socket_asks_whether_there_is_a_proxy(module: str) -> None:
    """Behind one nothing goes past it: `requests_proxies` for HTTP, `dialing` for peers, and else `allows_direct`."""
    source = path_of(module).read_text(encoding="utf-8")
    if module not in NOT_BEHIND_A_PROXY and _OPENS_SOCKETS.search(source):
        assert _KNOWS_OF_THE_PROXY.search(source), f"{module} opens sockets, and does not ask for the proxy"


# --- docstrings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ORDER)
def test_every_module_says_what_it_follows_and_who_may_call_it(module: str) -> None:
    """`Spec:`, `Thread:` and `Lock:`, in this order, after a first line that is a sentence."""
    docstring = docstring_of(module)
    sentence, *_ = docstring.split("\n\n")
    assert sentence.endswith((".", ":"))
    lines = re.findall(r"^(Spec|Thread|Lock): \S", docstring, re.MULTILINE)
    assert lines == (["Thread", "Lock"] if module in NO_SPEC else ["Spec", "Thread", "Lock"])


def locks_of(module: str) -> set[str]:
    """Return the names of the attributes that hold a module's locks."""
    kinds = {"Lock", "RLock", "Condition"}
    names = set()
    for node in ast.walk(tree_of(path_of(module))):
        if isinstance(node, ast.Assign) and called(node.value) in kinds:
            names |= {target.attr for target in node.targets if isinstance(target, ast.Attribute)}
    return names


@pytest.mark.parametrize("module", ORDER)
def test_every_lock_is_named_in_its_modules_docstring(module: str) -> None:
    """`Lock:` says what each lock guards, and `none` where there is none."""
    _, _, told = docstring_of(module).partition("\nLock:")
    locks = locks_of(module)
    for lock in locks:
        assert re.search(rf"`(\w+[.])?{lock}`", told), f"{module} does not say what {lock} guards"
    if not locks:
        assert "`_" not in told, f"{module} speaks of a lock that it does not have"


def held_blocks(module: str) -> Iterator[ast.With]:
    """Give every `with` statement of a module that holds one of its locks."""
    locks = locks_of(module)
    for node in ast.walk(tree_of(path_of(module))):
        if isinstance(node, ast.With):
            held = {item.context_expr.attr for item in node.items if isinstance(item.context_expr, ast.Attribute)}
            if held & locks:
                yield node


_SLOW = """
accept connect digest fsync getaddrinfo join open pread print pwrite read recv recvmsg_into result sendall sendmsg sha1
sleep submit write
"""
SLOW = frozenset(_SLOW.split())


@pytest.mark.parametrize("module", ORDER)
def test_nothing_slow_is_done_under_a_lock(module: str) -> None:
    """Collect inside, act outside: no I/O, hashing, logging or other lock, as far as the block itself shows it."""
    for block in held_blocks(module):
        for node in ast.walk(block):
            where = f"{module}, line {getattr(node, 'lineno', block.lineno)}"
            assert node is block or not isinstance(node, ast.With), f"{where}: a second `with`"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                assert not (isinstance(owner, ast.Name) and owner.id == "logger"), f"{where}: logging"
                if isinstance(owner, ast.Constant):
                    continue  # ", ".join
            assert called(node) not in SLOW, f"{where}: {called(node)}"


def definitions(
    body: list[ast.stmt], prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    """Give every function, class and method with its full name; functions inside functions are left out."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}.{node.name}"
            yield name, node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node.body, name)


@pytest.mark.parametrize("module", ORDER)
def test_everything_public_has_a_docstring(module: str) -> None:
    """A public name is one without an underscore, in a class without one."""
    for name, node in definitions(tree_of(path_of(module)).body, module):
        parts = name.removeprefix(module).split(".")
        if not any(part.startswith("_") for part in parts):
            assert ast.get_docstring(node), f"{name} has no docstring"


# --- sizes ------------------------------------------------------------------------------------------------


def sizes() -> Iterator[tuple[str, int, int]]:
    """Give the name, the lines and the limit of every module and every function; a docstring is no length."""
    for module in ORDER:
        tree = tree_of(path_of(module))
        yield module, len(path_of(module).read_text(encoding="utf-8").splitlines()), MAX_MODULE_LINES
        for name, node in definitions(tree.body, module):
            if not isinstance(node, ast.ClassDef):
                body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                last = body[-1].end_lineno
                assert last is not None
                yield name, last - body[0].lineno + 1, MAX_FUNCTION_LINES


def test_no_module_and_no_function_is_too_long() -> None:
    """What does not fit is split, or is named above with a reason."""
    too_long = {name: lines for name, lines, limit in sizes() if lines > LONGER.get(name, limit)}
    assert not too_long
    needed = {name for name, lines, limit in sizes() if lines > limit}
    assert set(LONGER) == needed
