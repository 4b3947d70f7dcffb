"""Task 4: Generate Peer ID."""

import importlib
import re
import sys

from tests.milestones.lesson import shown
from tests.milestones.student import MODULES, Student, Task, as_bytes

TASK = Task(
    4,
    "Generate Peer ID",
    "Create unique identifier for your client",
    "Function that generates consistent `peer_id`",
    """\
tracker_client.py
    def generate_peer_id():
        '''Return 20 bytes (or characters): -PC0001- and 12 random characters.'''""",
    "`random.choices(string.ascii_letters + string.digits, k=12)` gives twelve characters.",
)

PEER_ID = 'BEP 3, section "trackers" (peer_id), and BEP 20'


def generated(student: Student) -> bytes:
    """Return a peer id that the student's function makes, after its module was imported anew."""
    for name in [name for name in sys.modules if name.rpartition(".")[2] in MODULES]:
        del sys.modules[name]
    importlib.invalidate_caches()
    names = ("generate_peer_id", "make_peer_id", "create_peer_id", "new_peer_id")
    value = student.find("tracker_client", *names)()
    raw = as_bytes(value)
    student.expect(raw is not None, f"generate_peer_id() is {shown(value)}")
    return raw or b""


def test_it_has_20_bytes_and_begins_with_client_and_version(student: Student) -> None:
    """20 bytes: -PC0001- and 12 more."""
    with student.rule("a peer id is exactly 20 bytes long", PEER_ID):
        peer_id = generated(student)
        student.expect(
            len(peer_id) == 20, f"generate_peer_id() is {shown(peer_id)}, which is {len(peer_id)} bytes long"
        )
    with student.rule(
        "a peer id begins with a hyphen, two letters, four digits and a hyphen, such as -PC0001-", PEER_ID
    ):
        is_usual = re.match(rb"-[A-Za-z]{2}[0-9A-Za-z]{4}-", peer_id)
        student.expect(is_usual, f"generate_peer_id() is {shown(peer_id)}")


def test_it_is_another_one_in_every_run(student: Student) -> None:
    """Two runs of the program have different ids."""
    with student.rule("each run of a client has a peer id of its own, so that peers can be told apart", PEER_ID):
        first, second = generated(student), generated(student)
        student.expect(first != second, f"it was {shown(first)} twice")
        student.expect(first[:8] == second[:8], f"the client's name changed: {shown(first)}, then {shown(second)}")
