"""Networks that the kernel makes for one test: namespaces and virtual Ethernet, of which nothing reaches a real one."""

import subprocess
from typing import Final

import pytest

OWN_NETWORK: Final = (
    *("unshare", "--user", "--map-root-user", "--net", "--pid", "--mount-proc", "--fork", "--kill-child"),
    *("sh", "-c"),
)
"""What a shell script is run with, as root of a network of its own; all that it starts ends with it."""

ONE_MACHINE: Final = """\
ip link set lo up && ip link add ether0 type veth peer name ether1 && ip addr add 10.77.0.1/24 dev ether0 &&
ip link set ether0 up && ip link set ether1 up || exit 77
"""
"""A machine at an Ethernet to which nobody else is connected."""

THREE_MACHINES: Final = """\
ip link set lo up && echo 1 > /proc/sys/net/ipv4/ip_forward || exit 77
machine() {  # NAME NET: one at 10.NET.0.2, which has us at 10.NET.0.1 for a router
    unshare --net sleep 1000 & machine=$!
    until ! [ /proc/$machine/ns/net -ef /proc/self/ns/net ]; do sleep 0.05; done
    ip link add $1 type veth peer name ether netns $machine && ip addr add 10.$2.0.1/24 dev $1 && ip link set $1 up &&
    nsenter --target $machine --net sh -c "ip link set lo up && ip addr add 10.$2.0.2/24 dev ether &&
        ip link set ether up && ip route add default via 10.$2.0.1" || exit 77
}
machine left 1; left="nsenter --target $machine --net"
machine right 2; right="nsenter --target $machine --net"
"""
"""A machine between two others, which reach each other through it; `$left` and `$right` run a command there."""


def require_network(setup: str) -> None:
    """Skip the test where the system gives nobody a network of his own; no peer is missing then."""
    try:
        made = subprocess.run([*OWN_NETWORK, setup], capture_output=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"no network of our own: {error}")
    if made.returncode:
        pytest.skip(f"no network of our own: {made.stderr.decode(errors='replace').strip()}")
