"""A file over TCP and nothing else: the reference for links.

    fetch --> 16 bytes: offset, length --> serve
          <-- length bytes             <--

Each connection carries its share of the file; there are as many as peers are named. It is `sendfile` here, `recv_into`
and `pwrite` there: a call for every few packets on a link, so look at its time and not at its CPU.

usage: raw_copy.py serve FILE ADDRESS:PORT... | raw_copy.py fetch FILE SIZE ADDRESS:PORT...
"""

import os
import socket
import struct
import sys
import threading

BUFFER = 1 << 20  # bytes received at a time
TIMEOUT = 60.0  # seconds of silence after which the copy has failed


def endpoint(text: str) -> tuple[str, int]:
    """Split ADDRESS:PORT."""
    host, _, port = text.rpartition(":")
    return host, int(port)


def serve(path: str, addresses: list[str]) -> None:
    """Give everybody who connects the part of the file that they ask for, until killed."""
    with open(path, "rb") as file:
        threads = [threading.Thread(target=accept_all, args=(file.fileno(), address)) for address in addresses]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def accept_all(file: int, address: str) -> None:
    """Serve one address."""
    listener = socket.create_server(endpoint(address))
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=send_part, args=(file, peer)).start()


def send_part(file: int, peer: socket.socket) -> None:
    """Send the bytes that the first 16 ask for; a peer that leaves gets nothing."""
    with peer:
        question = peer.recv(16, socket.MSG_WAITALL)
        if len(question) < 16:
            return
        offset, left = struct.unpack("!QQ", question)
        while left:
            sent = os.sendfile(peer.fileno(), file, offset, left)
            offset, left = offset + sent, left - sent


def fetch(path: str, size: int, addresses: list[str]) -> None:
    """Get the file in equal parts, one from each address."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    bounds = [size * number // len(addresses) for number in range(len(addresses) + 1)]
    parts = zip(addresses, bounds[:-1], bounds[1:], strict=True)
    threads = [threading.Thread(target=receive_part, args=(file, *part)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(file)


def receive_part(file: int, address: str, start: int, end: int) -> None:
    """Write what comes; a part that is cut short ends the process with status 1."""
    buffer = memoryview(bytearray(BUFFER))
    with socket.create_connection(endpoint(address), timeout=TIMEOUT) as peer:
        peer.sendall(struct.pack("!QQ", start, end - start))
        while start < end:
            length = peer.recv_into(buffer)
            if not length:
                os._exit(1)
            os.pwrite(file, buffer[:length], start)
            start += length


def main() -> None:
    """Do one or the other."""
    if sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3:])
    else:
        fetch(sys.argv[2], int(sys.argv[3]), sys.argv[4:])


if __name__ == "__main__":
    main()
