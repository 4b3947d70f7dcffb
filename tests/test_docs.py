"""The documents agree with the code."""

import re
from pathlib import Path

import pytest

from thesis.api_docs import TARGET, module_paths, render
from torrent_client.cli.arguments import COMMANDS, build_parser
from torrent_client.cli.exit_codes import ExitCode

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_the_reference_is_made_from_the_present_docstrings() -> None:
    """`python -m thesis.api_docs` brings it up to date."""
    assert TARGET.read_text(encoding="utf-8") == render()


def test_the_readme_lists_every_exit_code() -> None:
    """Scripts depend on them."""
    table = README[README.index("| exit code |") :]
    numbers = {int(number) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M) for number in row.split(",")}
    assert numbers == {int(code) for code in ExitCode}


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "get"])
def test_the_readme_shows_every_command(command: str) -> None:
    """What is not shown is not found."""
    assert f"main.py {command}" in README


def test_the_readme_names_options_that_exist() -> None:
    """And none that were renamed since."""
    known = set(re.findall(r"--[a-z][a-z-]+", build_parser().format_help()))
    for action in build_parser()._subparsers._group_actions[0].choices.values():  # type: ignore[union-attr]
        known |= set(re.findall(r"--[a-z][a-z-]+", action.format_help()))
    usage = README[README.index("## Usage") : README.index("## Architecture")]
    assert set(re.findall(r"--[a-z][a-z-]+", usage)) <= known


def test_the_architecture_names_every_module() -> None:
    """A module that is on no floor has no place in the house."""
    names = {path.stem for path in module_paths() if path.parent.name == "torrent_client"}
    assert {name for name in names if f"`{name}`" not in ARCHITECTURE} == set()


def test_documents_name_modules_that_exist() -> None:
    """Paths in the README's table lead somewhere."""
    table = README[README.index("| specification |") :]
    for cell in re.findall(r"^\|[^|]*\|([^|]*)\|", table, re.M)[2:]:
        for name in re.findall(r"`([a-z_/]+)`", cell):
            assert (ROOT / "torrent_client" / f"{name}.py").exists(), name
