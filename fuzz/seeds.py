#!/usr/bin/env python3
"""Makes the first corpus of each target in fuzz/corpus from the fixtures; with --regressions, the hand-made inputs in fuzz/regressions."""

import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "bench"))
from dimse import _explicit, _implicit, _item, _pdata, associate_rq, data_set, store_rq  # noqa: E402

STUDY_ROOT = b"1.2.840.10008.5.1.4.1.2.2.1"


def write(folder, name, data):
    path = HERE / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def implicit(group, element, value):
    value += b" " * (len(value) % 2)
    return struct.pack("<HHI", group, element, len(value)) + value


def find_rq():
    command = b"".join(
        [
            _implicit(0x0002, STUDY_ROOT),
            _implicit(0x0100, struct.pack("<H", 0x20)),
            _implicit(0x0110, struct.pack("<H", 1)),
            _implicit(0x0700, struct.pack("<H", 0)),
            _implicit(0x0800, struct.pack("<H", 1)),
        ]
    )
    return _pdata(1, _implicit(0, struct.pack("<I", len(command))) + command) + _pdata(0, implicit(8, 0x52, b"STUDY"))


def identifiers():
    level = implicit(8, 0x52, b"STUDY")
    yield b"names", level + implicit(0x10, 0x10, b"*mi?h^j*") + implicit(0x10, 0x20, b"A\\B")
    yield b"dates", implicit(8, 0x20, b"20040101-") + implicit(8, 0x30, b"-1200") + level
    yield b"uids", level + implicit(0x20, 0xD, b"1.2.3\\1.2.4")
    yield b"sequence", level + struct.pack("<HHI", 0x40, 0x275, 0xFFFFFFFF) + bytes.fromhex("feff00e0ffffffff") + implicit(0x40, 7, b"x") + bytes.fromhex("feff0de000000000feffdde000000000")
    yield b"image", implicit(8, 0x18, b"1.2") + implicit(8, 0x52, b"IMAGE") + implicit(0x20, 0x13, b"1")


def corpus():
    for path in sorted((HERE.parent / "fixtures").rglob("*")):
        if path.is_file() and path.stat().st_size < 200_000 and path.suffix not in (".md", ".txt", ".py", ".sql"):
            data = path.read_bytes()[:16_384]
            write("corpus/file", path.name, data)
            if data[128:132] == b"DICM":
                for syntax in range(6):
                    write("corpus/stream", f"{path.name}-{syntax}", bytes([syntax, 200]) + data[132:4096])
    dataset = data_set(b"1.2", b"1.3", b"1.4", b"pixels")
    write("corpus/stream", "secondary", bytes([1, 7]) + dataset)
    write("corpus/pdu", "store", associate_rq(b"DCMDEX") + store_rq(1, b"1.4", dataset))
    write("corpus/pdu", "find", associate_rq(b"DCMDEX") + find_rq())
    for name, identifier in identifiers():
        for how in (0, 4, 8, 0xF0):
            write("corpus/identifier", f"{name.decode()}-{how}", bytes([how]) + identifier)


def regressions():
    nested = _explicit(8, 0x16, b"UI", b"1.2") + b"".join(
        struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF) + bytes.fromhex("feff00e0ffffffff") for _ in range(2_000)
    )
    huge = _explicit(8, 0x16, b"UI", b"1.2") + struct.pack("<HH2sHI", 0x20, 0x4000, b"UN", 0, 0xFFFFFFFE)
    preamble = bytes(128) + b"DICM" + _explicit(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
    for name, data in {"nested": nested, "huge": huge, "delimiters": bytes.fromhex("feff0de000000000") * 500, "empty": b""}.items():
        write("regressions/file", name, preamble + data)
        for syntax in range(6):
            write("regressions/stream", f"{name}-{syntax}", bytes([syntax, 3]) + data[:8_192])
        write("regressions/identifier", name, bytes([1]) + data[:8_192])
    write("regressions/file", "meta-length", bytes(128) + b"DICM" + bytes.fromhex("02000000554c0400ffffffff"))
    for name, identifier in identifiers():
        write("regressions/identifier", name.decode(), b"\0" + identifier)
    write("regressions/identifier", "many-wild-cards", b"\0" + implicit(8, 0x52, b"STUDY") + implicit(0x10, 0x10, b"*?" * 1_000))
    write("regressions/pdu", "http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    write("regressions/pdu", "four-gigabytes", bytes.fromhex("0100ffffffff0001"))
    write("regressions/pdu", "sub-items", b"\1\0" + struct.pack(">I", 68 + 4_000) + bytes([0, 1, 0, 0]) + b" " * 64 + bytes([0x20, 0, 0, 0]) * 1_000)
    write("regressions/pdu", "store", associate_rq(b"DCMDEX") + store_rq(1, b"../../x", b""))
    write("regressions/pdu", "pdv-lies", bytes.fromhex("0400000000060000000001030400000000060000000101030400000000067fffffff0103"))
    write("regressions/pdu", "context-twice", associate_rq(b"X")[:6] + associate_rq(b"X")[6:] + _item(0x20, b""))


if __name__ == "__main__":
    corpus()
    if "--regressions" in sys.argv:
        regressions()
