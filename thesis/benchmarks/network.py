"""The network that the benchmarks run in: one of their own, and links through which a leecher may reach it.

    namespace of the benchmark                              namespace of the leecher (links only)
    lo: 10.77.0.0/16, all of it local                       lo
    seeders, idle peers, tracker (without a link)           leecher, tracker
                  link0: 10.78.1.x <--- link ---> 10.78.2.1
                  seeders behind a link

The command starts itself again in a network namespace where only loopback exists. Nothing reaches the internet or
comes from it, two benchmarks do not meet, `lo` counts every byte that peers exchange, and addresses are at hand that
do not look like loopback, which Transmission takes no peers from. Where the system allows no namespaces, all runs on
127.0.0.0/8: no bytes are counted and there are no links.

A link is netem on a pair of veth devices where the kernel has it, else `link.c` on a pair of TUN devices. Both have the
same rate, delay, loss and queue.
"""

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thesis.benchmarks import machine
from thesis.benchmarks.processes import Helper, RunFailed, helper

INSIDE = "BENCHMARK_NETWORK"  # set in the environment of the command that runs in its own namespace
SETTLE = 5.0  # seconds for a namespace to appear
NEAR, FAR = "10.78.1", "10.78.2.1"  # the ends of a link: the first bytes of many addresses, and one
DEVICE = "link0"
MTU = 1500  # bytes, as on Ethernet
MAX_NEAR = 8  # seeders behind a link
PROBE = 254  # last byte of the address from which seeders are asked whether they are ready
TUN = Path("/dev/net/tun")


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """What a link is like, the same in both directions; the delay is one way, so that a round trip takes two."""

    mbit: float  # 10^6 bits per second, of IP packets
    delay: float  # milliseconds
    loss: float = 0.0  # percent

    def __str__(self) -> str:
        """Write it the way that tables have it."""
        loss = f", {self.loss:g} % loss" if self.loss else ""
        return f"{self.mbit:g} Mbit/s, {self.delay:g} ms{loss}"

    @property
    def bytes_per_second(self) -> float:
        """The rate in bytes."""
        return self.mbit * 1e6 / 8

    @property
    def queue(self) -> int:
        """Bytes that wait in front of the line at most: what fits into a round trip, or a hundred packets."""
        return max(100 * MTU, int(self.bytes_per_second * 2 * self.delay / 1000))


def enter_own_namespace(arguments: list[str]) -> bool:
    """Start this command again in a namespace of its own; True when that has been done, False where it cannot be."""
    if os.environ.pop(INSIDE, ""):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "address", "add", "10.77.0.1/16", "dev", "lo"], check=True)
        return True
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    if not shutil.which("ip") or not can([*unshare, "ip", "link", "set", "lo", "up"]):
        return False
    command = [*unshare, sys.executable, "-m", "thesis.benchmarks", *arguments]
    return os.execvpe(command[0], command, {**os.environ, INSIDE: "entering"})  # noqa: S606 - it does not return


def can(command: list[str]) -> bool:
    """Return whether a command can be run here and succeeds."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


class Network:
    """Addresses, counters and links."""

    def __init__(self, is_own: bool) -> None:
        """Use all of 10.77.0.0/16 in a namespace of our own, else loopback addresses."""
        self.is_own = is_own
        self._prefix = "10.77" if self.is_own else "127.0"

    def address(self, number: int, group: int = 0) -> str:
        """Return ADDRESS:PORT of the peer of this number, from 0, of a group; the port is free now."""
        return free_port(f"{self._prefix}.{2 * group + number // 250}.{number % 250 + 2}")

    def bytes_so_far(self) -> int | None:
        """Return the bytes that went over loopback; None where they cannot be told from other programs'."""
        return device_bytes(Path("/proc/self/net/dev"), "lo") if self.is_own else None

    def why_no_link(self) -> str:
        """Return why there can be no links; empty when there can."""
        if not self.is_own:
            return "links need network namespaces, which this system does not allow"
        if has_netem():
            return ""
        if machine.missing_compiler() or not os.access(TUN, os.R_OK | os.W_OK):
            return "links need netem in the kernel, or a C compiler and /dev/net/tun"
        return ""

    @contextlib.contextmanager
    def link(self, spec: LinkSpec, place: Path, tools: Path, seed: int) -> Iterator["Link"]:
        """Set up a namespace for a leecher behind a link, for the length of a with block; seed decides on losses."""
        with helper(["unshare", "--net", "sleep", "infinity"], place, "namespace") as holder:
            link = Link(holder)
            with lay_netem(link, spec) if has_netem() else lay_tun(link, spec, place, tools, seed):
                for last in (*range(1, MAX_NEAR + 1), PROBE):
                    run(["ip", "address", "add", f"{NEAR}.{last}/16", "dev", DEVICE])
                run(["ip", "link", "set", DEVICE, "up", "mtu", str(MTU)])
                link.run(["ip", "link", "set", "lo", "up"])
                link.run(["ip", "address", "add", f"{FAR}/16", "dev", DEVICE])
                link.run(["ip", "link", "set", DEVICE, "up", "mtu", str(MTU)])
                yield link


class Link:
    """The far side of a link; a helper process keeps the namespace."""

    far_address = "0.0.0.0:6881"  # for the leecher, who is alone there: all devices, for lo leads to the tracker

    def __init__(self, holder: Helper) -> None:
        """Wait until the holder has its namespace; RunFailed when it gets none."""
        self.holder = holder
        self.carrier: Helper | None = None  # the process of a user-space link
        self.namespace = Path(f"/proc/{holder.pid}/ns/net")
        deadline = time.monotonic() + SETTLE
        while self.namespace.readlink() == Path("/proc/self/ns/net").readlink():
            if not holder.alive() or time.monotonic() > deadline:
                raise RunFailed(f"no namespace: {holder.complaint()}")
            time.sleep(0.01)

    @property
    def prefix(self) -> list[str]:
        """What stands before a command that is to run on the far side."""
        return ["nsenter", f"--net={self.namespace}", "--"]

    def run(self, command: list[str]) -> None:
        """Run a command on the far side; RunFailed when it fails."""
        run([*self.prefix, *command])

    def address(self, number: int) -> str:
        """Return ADDRESS:PORT for the seeder of this number, from 0, on the near side."""
        return free_port(f"{NEAR}.{number + 1}")

    def bytes_so_far(self) -> int:
        """Return the bytes of IP packets that the far side has sent and received."""
        return device_bytes(Path(f"/proc/{self.holder.pid}/net/dev"), DEVICE)


@contextlib.contextmanager
def lay_netem(link: Link, spec: LinkSpec) -> Iterator[None]:
    """Connect the namespaces with a veth pair, each end of it delayed by the kernel."""
    run(["ip", "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", str(link.holder.pid)])
    try:
        for runner in (run, link.run):
            runner(["ip", "link", "set", DEVICE, "gso_max_segs", "1"])  # netem is to see packets, not bundles
            runner(netem(spec))
        yield
    finally:
        run(["ip", "link", "delete", DEVICE])


def netem(spec: LinkSpec) -> list[str]:
    """Return the command that makes the device slow; its limit counts packets under way and waiting ones."""
    packets = int((spec.bytes_per_second * spec.delay / 1000 + spec.queue) / MTU) + 1
    command = ["tc", "qdisc", "add", "dev", DEVICE, "root", "netem", "limit", str(packets)]
    loss = ["loss", f"{spec.loss:g}%"] if spec.loss else []
    return [*command, "delay", f"{spec.delay:g}ms", *loss, "rate", f"{spec.mbit * 1000:.0f}kbit"]


@contextlib.contextmanager
def lay_tun(link: Link, spec: LinkSpec, place: Path, tools: Path, seed: int) -> Iterator[None]:
    """Connect the namespaces with two TUN devices and a process between them."""
    program = machine.compile_c("link", tools)
    facts = (spec.mbit * 1e6, spec.delay * 1000, spec.loss * 1e4, spec.queue, seed)
    command = [str(program), DEVICE, str(link.namespace), *(str(int(fact)) for fact in facts)]
    with helper(command, place, "link") as carrier:
        carrier.first_line()
        link.carrier = carrier
        yield


def free_port(host: str) -> str:
    """Return the address with a port that is free now."""
    with socket.create_server((host, 0)) as server:
        return f"{host}:{server.getsockname()[1]}"


def run(command: list[str]) -> None:
    """Run a command that sets something up; RunFailed when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunFailed(f"{' '.join(command)}: {done.stderr.strip()}")


@functools.cache
def has_netem() -> bool:
    """Return whether the kernel knows netem: tried out in a namespace that ends with the command."""
    return bool(shutil.which("tc")) and can(
        ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    )


def device_bytes(table: Path, device: str) -> int:
    """Return the bytes that a device received, and for all but loopback also those that it sent."""
    for line in table.read_text(encoding="ascii").splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == device:
            numbers = counters.split()
            return int(numbers[0]) + (0 if device == "lo" else int(numbers[8]))
    return 0
