#!/usr/bin/env python3
"""Times one honest client beside hundreds of slow, stalled and greedy peers.

    tools/bench/fairness.py --work DIR [--peers 20] [--each 30] [--seconds 20]

The greedy peers call from --peers addresses of 127.0.0.0/8, each with --each associations of one
kind: silent; C-GET whose objects are not read; C-MOVE to a destination that hangs; C-FIND whose
answers are not read; Identifiers that do not end; objects that do not end; storage commitment whose
reports are not answered; C-ECHO without a pause. Each kind is measured alone, then all of them
together. Meanwhile the honest client, from an address of its own, does C-ECHO, C-FIND and C-STORE,
each with a new association. Exit code 1: it is refused, or a C-ECHO takes 50 ms, a C-FIND 500 ms or
a C-STORE 1 s, or the node has 256 MB. Linux only. Standard library only.
"""

import argparse
import itertools
import resource
import socket
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

from common import commit, fail, machine, serve
from dimse import MAX_PDU, SECONDARY_CAPTURE, _implicit, _item

IMPLICIT_LE = b"1.2.840.10008.1.2"
COMMITMENT = b"1.2.840.10008.1.20.1"
CLASSES = [
    b"1.2.840.10008.1.1",
    SECONDARY_CAPTURE,
    b"1.2.840.10008.5.1.4.1.2.2.1",
    b"1.2.840.10008.5.1.4.1.2.2.3",
    b"1.2.840.10008.5.1.4.1.2.2.2",
    COMMITMENT,
]
ECHO, STORE, FIND, GET, MOVE, COMMIT = range(1, 13, 2)
LIMITS_MS = {"C-ECHO": 50, "C-FIND": 500, "C-STORE": 1000}
LIMIT_MB = 256
numbers = itertools.count(1)


def associate_rq():
    contexts = b"".join(
        _item(0x20, struct.pack(">BBBB", 2 * at + 1, 0, 0, 0) + _item(0x30, uid) + _item(0x40, IMPLICIT_LE))
        for at, uid in enumerate(CLASSES)
    )
    role = struct.pack(">H", len(SECONDARY_CAPTURE)) + SECONDARY_CAPTURE + b"\1\1"
    user = _item(0x51, struct.pack(">I", MAX_PDU)) + _item(0x52, b"1.2.3") + _item(0x54, role)
    items = _item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + _item(0x50, user)
    body = struct.pack(">HH", 1, 0) + b"DCMDEX".ljust(16) + b"FAIR".ljust(16) + bytes(32) + items
    return struct.pack(">BBI", 1, 0, len(body)) + body


def element(group, number, value, pad=b" "):
    value += pad * (len(value) % 2)
    return struct.pack("<HHI", group, number, len(value)) + value


def uid(group, number, value):
    return element(group, number, value, b"\0")


def pdata(context, kind, data):
    out = []
    step = MAX_PDU - 6
    pieces = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
    for number, piece in enumerate(pieces):
        control = kind | (2 if number == len(pieces) - 1 else 0)
        out.append(struct.pack(">BBIIBB", 4, 0, len(piece) + 6, len(piece) + 2, context, control) + piece)
    return b"".join(out)


def message(context, field, data=None, *more):
    has_data = 0x0101 if data is None else 1
    # (0000,0002) of C-messages, (0000,0003) of N-ACTION-RQ.
    sop_class = _implicit(0x0003 if field == 0x0130 else 0x0002, CLASSES[context // 2])
    command = sop_class + _implicit(0x0100, struct.pack("<H", field)) + _implicit(0x0110, struct.pack("<H", 1))
    parts = {0x0700: struct.pack("<H", 0), 0x0800: struct.pack("<H", has_data), **dict(more)}
    command += b"".join(_implicit(tag, parts[tag]) for tag in sorted(parts))
    command = _implicit(0x0000, struct.pack("<I", len(command))) + command
    return pdata(context, 1, command) + (pdata(context, 0, data) if data is not None else b"")


def instance(name, pixels):
    return b"".join(
        [
            uid(0x0008, 0x0016, SECONDARY_CAPTURE),
            uid(0x0008, 0x0018, name),
            element(0x0010, 0x0020, b"F1"),
            element(0x0010, 0x4000, b"x" * 9000),
            uid(0x0020, 0x000D, b"1.2.3"),
            uid(0x0020, 0x000E, b"1.2.3.4"),
            element(0x7FE0, 0x0010, pixels),
        ]
    )


def store(name, pixels=bytes(500_000)):
    return message(STORE, 1, instance(name, pixels), (0x1000, name))


STUDY = element(0x0008, 0x0052, b"STUDY") + uid(0x0020, 0x000D, b"1.2.3")
INSTANCES = b"".join(
    [
        uid(0x0008, 0x0018, b""),
        element(0x0008, 0x0052, b"IMAGE"),
        element(0x0010, 0x4000, b""),
        uid(0x0020, 0x000D, b"1.2.3"),
        uid(0x0020, 0x000E, b"1.2.3.4"),
    ]
)
LONG = uid(0x0008, 0x0018, b"1.2.3\\" * 240_000) + element(0x0008, 0x0052, b"IMAGE")


def transaction():
    reference = uid(0x0008, 0x1150, SECONDARY_CAPTURE) + uid(0x0008, 0x1155, b"1.2.3.4.1")
    items = struct.pack("<HHI", 0xFFFE, 0xE000, len(reference)) + reference
    data = uid(0x0008, 0x1195, b"1.2.3.%d" % next(numbers)) + element(0x0008, 0x1199, items)
    return message(COMMIT, 0x0130, data, (0x1001, b"1.2.840.10008.1.20.1.1"), (0x1008, struct.pack("<H", 1)))


class Peer:
    def __init__(self, port, source):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(associate_rq())
        kind, _ = self.pdu()
        if kind != 2:
            raise ConnectionError(f"no association: PDU {kind}")

    def exactly(self, count):
        parts = b""
        while len(parts) < count:
            part = self.socket.recv(count - len(parts))
            if not part:
                raise ConnectionError("closed")
            parts += part
        return parts

    def pdu(self):
        kind, _, length = struct.unpack(">BBI", self.exactly(6))
        return kind, self.exactly(length)

    def status(self):
        """The status of the next response; data sets are passed over."""
        command = b""
        while True:
            kind, body = self.pdu()
            if kind != 4:
                raise ConnectionError(f"PDU {kind} instead of a response")
            while body:
                (length,) = struct.unpack_from(">I", body)
                control, piece, body = body[5], body[6 : 4 + length], body[4 + length :]
                command += piece if control & 1 else b""
                if control & 3 == 3:
                    while command:
                        _, tag, length = struct.unpack_from("<HHI", command)
                        if tag == 0x0900:
                            return struct.unpack_from("<H", command, 8)[0]
                        command = command[8 + length :]

    def release(self):
        self.socket.sendall(bytes.fromhex("050000000004") + bytes(4))
        self.pdu()
        self.socket.close()


def honest(port, name):
    """Milliseconds of one request with its association."""
    begun = time.perf_counter()
    peer = Peer(port, "127.0.0.1")
    if name == "C-ECHO":
        peer.socket.sendall(message(ECHO, 0x30))
    elif name == "C-FIND":
        peer.socket.sendall(message(FIND, 0x20, STUDY))
    else:
        peer.socket.sendall(store(b"1.2.3.9.%d" % next(numbers)))
    while (status := peer.status()) & 0xFF00 == 0xFF00:
        pass
    if status:
        fail(f"{name} was answered with {status:04X}")
    taken = (time.perf_counter() - begun) * 1000
    peer.release()
    return taken


def flood(peer):
    try:
        while True:
            peer.socket.sendall(message(ECHO, 0x30))
            peer.status()
    except OSError:
        pass


def stall(kind, peer):
    """Does what its kind does, and then takes nothing more."""
    if kind == "C-ECHO without a pause":
        threading.Thread(target=flood, args=(peer,), daemon=True).start()
        return
    parts = {
        "silent": b"",
        "C-GET not read": message(GET, 0x10, STUDY),
        "C-MOVE to a destination that hangs": message(MOVE, 0x21, STUDY, (0x0600, b"HANGS ")),
        "C-FIND not read": message(FIND, 0x20, INSTANCES),
        "Identifiers without an end": message(FIND, 0x20, LONG)[:-10],
        "objects without an end": store(b"1.2.3.8.%d" % next(numbers))[:-10],
        "commitment not answered": b"".join(transaction() for _ in range(10)),
    }
    peer.socket.settimeout(5)
    try:
        peer.socket.sendall(parts[kind])
    except TimeoutError:
        pass


KINDS = [
    "silent",
    "C-GET not read",
    "C-MOVE to a destination that hangs",
    "C-FIND not read",
    "Identifiers without an end",
    "objects without an end",
    "commitment not answered",
    "C-ECHO without a pause",
]


def hang(listener):
    """Takes connections and says nothing."""
    taken = []
    while True:
        try:
            taken.append(listener.accept())
        except OSError:
            return


def measure(node, kinds, options):
    peers, refused = [], 0
    for number, _ in itertools.product(range(options.peers), range(options.each)):
        try:
            peers.append(Peer(node.port, f"127.0.1.{number + 1}"))
            stall(kinds[len(peers) % len(kinds)], peers[-1])
        except OSError:
            refused += 1
    times = {name: [] for name in LIMITS_MS}
    peak, until = node.rss_mb(), time.perf_counter() + options.seconds
    while time.perf_counter() < until:
        for name, taken in times.items():
            taken.append(honest(node.port, name))
        peak = max(peak, node.rss_mb())
    for peer in peers:
        peer.socket.close()
    worst = {name: max(taken) for name, taken in times.items()}
    cells = []
    for taken in times.values():
        taken.sort()
        cells.append(f"{taken[len(taken) // 2]:.1f} / {taken[-1]:.1f}")
    beside = kinds[0] if len(kinds) == 1 else "all of them"
    print(f"| {len(peers)} x {beside} ({refused} refused) | {' | '.join(cells)} | {peak:.0f} |", flush=True)
    return all(worst[name] < limit for name, limit in LIMITS_MS.items()) and peak < LIMIT_MB


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for index and objects")
    parser.add_argument("--peers", type=int, default=20)
    parser.add_argument("--each", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    threading.Thread(target=hang, args=(listener,), daemon=True).start()
    print(f"- Machine: {machine()}. Commit {commit()}. {options.seconds:.0f} s each.")
    print("| beside | C-ECHO p50 / max ms | C-FIND | C-STORE | peak RSS MB |\n|---|---:|---:|---:|---:|")
    good = True
    for kinds in [*([kind] for kind in KINDS), KINDS]:
        with tempfile.TemporaryDirectory(dir=options.work) as home, open(Path(home) / "log", "wb") as log:
            home = Path(home)
            hangs = f"HANGS=127.0.0.1:{listener.getsockname()[1]}"
            with serve(home / "index.db", home / "objects", log, "--peer", hangs) as node:
                filler = Peer(node.port, "127.0.0.1")
                for number in range(500):
                    filler.socket.sendall(store(b"1.2.3.4.%d" % number, bytes(100_000)))
                    if filler.status():
                        fail("the archive cannot be filled")
                filler.release()
                good &= measure(node, kinds, options)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
