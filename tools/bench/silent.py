#!/usr/bin/env python3
"""Times C-ECHO beside silent connections and associations, and measures what those cost in memory.

    tools/bench/silent.py --work DIR [--associations 1000] [--connections 1000] [--half-open 1000]
        [--rounds 200]

All connections come from one address, which may hold no more than it leaves to others. So the
limits of the node are raised above the defaults. Each round is a new association: connect,
A-ASSOCIATE, C-ECHO, A-RELEASE, until the peer closes. It is measured five times: beside nothing,
beside TCP connections that send nothing, beside those that send the first six bytes of an
A-ASSOCIATE-RQ, beside associations that send nothing, and beside all of them. Exit code 1: somebody
is refused, or the slowest round takes more than --limit milliseconds. Standard library only.
"""

import argparse
import os
import resource
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path

from common import commit, fail, machine, serve
from dimse import _implicit, _item, _pdata

VERIFICATION = b"1.2.840.10008.1.1"
IMPLICIT_LE = b"1.2.840.10008.1.2"


def associate_rq():
    context = struct.pack(">BBBB", 1, 0, 0, 0) + _item(0x30, VERIFICATION) + _item(0x40, IMPLICIT_LE)
    user = _item(0x51, struct.pack(">I", 16384)) + _item(0x52, b"1.2.3")
    items = _item(0x10, b"1.2.840.10008.3.1.1.1") + _item(0x20, context) + _item(0x50, user)
    body = struct.pack(">HH", 1, 0) + b"DCMDEX".ljust(16) + b"SILENT".ljust(16) + bytes(32) + items
    return struct.pack(">BBI", 1, 0, len(body)) + body


def echo_rq():
    command = _implicit(0x0002, VERIFICATION) + _implicit(0x0100, struct.pack("<H", 0x30))
    command += _implicit(0x0110, struct.pack("<H", 1)) + _implicit(0x0800, struct.pack("<H", 0x0101))
    return _pdata(1, _implicit(0x0000, struct.pack("<I", len(command))) + command)


ASSOCIATE, ECHO, RELEASE = associate_rq(), echo_rq(), bytes.fromhex("050000000004") + bytes(4)


def exactly(peer, count):
    parts = b""
    while len(parts) < count:
        part = peer.recv(count - len(parts))
        if not part:
            fail("the node closed a connection")
        parts += part
    return parts


def pdu(peer, expected):
    kind, _, length = struct.unpack(">BBI", exactly(peer, 6))
    body = exactly(peer, length)
    if kind != expected:
        fail(f"PDU {kind} instead of {expected}: {body.hex()}")
    return body


def connect(port):
    peer = socket.create_connection(("127.0.0.1", port), timeout=60)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def half_open(port):
    """Says how long its A-ASSOCIATE-RQ is, and does not send it."""
    peer = connect(port)
    peer.sendall(ASSOCIATE[:6])
    return peer


def associated(port):
    peer = connect(port)
    peer.sendall(ASSOCIATE)
    pdu(peer, 2)
    return peer


def echo(port):
    """Milliseconds that a C-ECHO takes, with its association."""
    begun = time.perf_counter()
    with associated(port) as peer:
        peer.sendall(ECHO)
        # Status 0000H is the last element of the response.
        if not pdu(peer, 4).endswith(_implicit(0x0900, b"\0\0")):
            fail("C-ECHO was not answered with Success")
        peer.sendall(RELEASE)
        pdu(peer, 6)
    return (time.perf_counter() - begun) * 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for index and objects")
    parser.add_argument("--associations", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--half-open", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--limit", type=float, default=50, help="milliseconds")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # One address gets at most half of each.
    limits = {
        "MAX_ASSOCIATIONS": 4 * options.associations + 100,
        "MAX_ASSOCIATIONS_PER_PEER": 2 * options.associations + 50,
        "MAX_UNASSOCIATED_CONNECTIONS": 4 * (options.connections + options.half_open) + 100,
    }
    os.environ.update({f"DCMDEX_NETWORK__{name}": str(limit) for name, limit in limits.items()})
    slowest = 0
    print(f"- Machine: {machine()}. Commit {commit()}. Rounds: {options.rounds} each.")
    print("| beside | p50 ms | p99 ms | max ms | RSS MB |\n|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(dir=options.work) as home, open(Path(home) / "log", "wb") as log:
        home = Path(home)
        with serve(home / "index.db", home / "objects", log) as node:
            every = [
                ("silent connections", connect, options.connections),
                ("half-open peers", half_open, options.half_open),
                ("silent associations", associated, options.associations),
            ]
            # Those without an association last: their time is short.
            for beside in ([], every[:1], every[1:2], every[2:], every[::-1]):
                silent = [make(node.port) for _, make, count in beside for _ in range(count)]
                times = sorted(echo(node.port) for _ in range(options.rounds))
                slowest = max(slowest, times[-1])
                name = " and ".join(f"{count:,} {what}" for what, _, count in beside) or "nothing"
                p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
                print(f"| {name} | {p50:.2f} | {p99:.2f} | {times[-1]:.2f} | {node.rss_mb():.1f} |", flush=True)
                for peer in silent:
                    peer.close()
    sys.exit(1 if slowest > options.limit else 0)


if __name__ == "__main__":
    main()
