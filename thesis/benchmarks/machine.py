"""The computer: what it is, which commit is checked out, and what else it was doing (Linux: /proc)."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")  # per second, the unit of /proc/stat and /proc/PID/stat
BUSY_FIELDS = (0, 1, 2, 7)  # of the cpu line: user, nice, system, steal; interrupts are our own packets
TOUCH_STEP = 1 << 20  # bytes a write
COMMAND_TIMEOUT = 30  # seconds for a command that prints a version
CC = "cc"
MEMORY_DISK = Path("/dev/shm")  # noqa: S108 - the figures are to be without a disk


def describe() -> dict[str, object]:
    """Return what a reader needs to judge a figure, or to repeat it elsewhere."""
    processor = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    facts = dict(line.split(":", 1) for line in processor.splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return {
        "cpu": facts.get("model name", platform.machine()),
        "cores": os.cpu_count(),
        "sha_instructions": "sha_ni" in flags or "sha1" in flags,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "congestion_control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text(encoding="ascii").strip(),
    }


def commit() -> str:
    """Return the commit that is checked out, with ``+`` when files differ from it; empty without git."""
    return git_name("HEAD", ".")


def code() -> str:
    """Return the name of the client's code alone, which stays the same when only the benchmarks change."""
    return git_name("HEAD:torrent_client", "torrent_client")


def git_name(revision: str, path: str) -> str:
    """Return the short name of a revision, with ``+`` when files below the path differ from it."""
    git = ["git", "-C", str(REPOSITORY)]
    try:
        name = first_line([*git, "rev-parse", "--short", revision])
        changed = first_line([*git, "status", "--porcelain", path])
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name + ("+" if changed else "")


def first_line(command: list[str]) -> str:
    """Return the first line that a command prints; OSError or CalledProcessError when it fails."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMMAND_TIMEOUT)
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def busy_seconds() -> float:
    """Return the CPU seconds that all programs together have used since the machine started."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    return sum(int(fields[field]) for field in BUSY_FIELDS) / TICKS


def cpu_seconds(pid: int) -> float:
    """Return the user and system seconds of a running process and its children that have ended (10 ms steps)."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def resident(pid: int, field: str) -> int:
    """Return a running process's resident size, in bytes: VmRSS now, VmHWM the largest since its exec."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def free_bytes(directory: Path) -> int:
    """Return how many bytes of files a directory still takes; those of a memory disk are of memory that is free."""
    free = shutil.disk_usage(directory).free
    if not directory.is_relative_to(MEMORY_DISK):
        return free
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return min(free, *(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))


def touch_memory(directory: Path, size: int) -> None:
    """Write and remove a file of this many bytes, so that the memory for the next one is really there.

    A virtual machine may have given free pages back to its host; taking them again costs the first program that
    needs them up to a second per GiB, as its own system time and with no other load to be seen.
    """
    path, zeros = directory / "touch", bytes(TOUCH_STEP)
    with path.open("wb", buffering=0) as file:
        for _ in range(size // TOUCH_STEP + 1):
            file.write(zeros)
    path.unlink()


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write a file of settings."""
    path.write_text(json.dumps(value), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def missing_compiler() -> str:
    """Return why C programs cannot be built here; empty when they can."""
    return "" if shutil.which(CC) else "there is no C compiler"


def compile_c(name: str, directory: Path) -> Path:
    """Build a C file of this package into the directory, once, with OpenSSL's SHA-1 when it links."""
    program = directory / name
    if program.exists():
        return program
    source = Path(__file__).with_name(f"{name}.c")
    command = [CC, "-O2", "-pthread", "-o", str(program), str(source)]
    with_openssl = subprocess.run([*command, "-DHAVE_CRYPTO", "-lcrypto"], capture_output=True, check=False)
    if with_openssl.returncode:
        subprocess.run(command, check=True)
    return program
