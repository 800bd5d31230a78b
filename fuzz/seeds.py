#!/usr/bin/env python3
"""Makes the first corpus of each target in fuzz/corpus from the fixtures; with --regressions, the hand-made inputs in fuzz/regressions."""

import gzip
import io
import struct
import sys
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tools/bench"))
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


def instance(number):
    """A small file, its pixels left out."""
    return bytes(128) + b"DICM" + _explicit(2, 0x10, b"UI", b"1.2.840.10008.1.2.1") + data_set(b"1.2", b"1.3", b"1.%d" % number, b"")


def zip_of(members, method=zipfile.ZIP_DEFLATED, streamed=False):
    """Members as a dictionary, or as pairs where a name stands twice."""
    out = io.BytesIO()
    # A file that cannot be sought has the sizes of its members behind them.
    with zipfile.ZipFile(Forward(out) if streamed else out, "w", method) as archive:
        for name, data in pairs(members):
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def zip64_of(members, method=zipfile.ZIP_DEFLATED, streamed=False):
    """As zip_of, with every size and offset in the fields of zip64."""
    limit = zipfile.ZIP64_LIMIT
    # All that is greater than this goes there: a real archive of 4 GB is no seed.
    zipfile.ZIP64_LIMIT = 0
    try:
        return zip_of(members, method, streamed)
    finally:
        zipfile.ZIP64_LIMIT = limit


def zip64_end(members, extended=b"", before=b"", wide=False):
    """A zip of stored members that ends as zip64 prescribes; `before` stands before it and is counted by no offset.

    `wide`: the plain end says nothing. Otherwise it says the same, as some writers to a pipe have it.
    """
    zipped = raw_zip([(name, 0, data, len(data), len(data), None, b"") for name, data in members])
    end = zipped[-22:]
    count, length, offset = struct.unpack_from("<10xHII", end)
    numbers = struct.pack("<HHIIQQQQ", 45, 45, 0, 0, count, count, length, offset)
    record = b"PK\6\6" + struct.pack("<Q", len(numbers) + len(extended)) + numbers + extended
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(zipped) - 22, 1)
    if wide:
        end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return before + zipped[:-22] + record + locator + end


def pairs(members):
    return members.items() if isinstance(members, dict) else members


class Forward(io.RawIOBase):
    """Can only be written from start to end."""

    def __init__(self, out):
        self.out = out

    def writable(self):
        return True

    def write(self, data):
        return self.out.write(data)


def tar_of(members, form=tarfile.GNU_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in pairs(members):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def raw_zip(members, directory=None, offset=None, end=b""):
    """A zip whose every number can lie: members are (name, method, data, compressed, size, local offset or None, extra)."""
    body, entries = b"", b""
    for name, method, data, compressed, size, local, extra in members:
        at = len(body) if local is None else local
        numbers = struct.pack("<IIIHH", zlib.crc32(data), compressed, size, len(name), len(extra))
        body += struct.pack("<4sHHHI", b"PK\3\4", 20, 0, method, 0) + numbers + name + extra + data
        entries += struct.pack("<4sHHHHI", b"PK\1\2", 20, 20, 0, method, 0) + numbers + struct.pack("<HHHII", 0, 0, 0, 0, at) + name + extra
    directory = len(entries) if directory is None else directory
    offset = len(body) if offset is None else offset
    return body + entries + end + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, len(members), len(members), directory, offset, 0)


def tar_header(name, size, kind=b"0", magic=b"ustar\0"):
    """A header whose size can be any twelve bytes."""
    block = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size + b"0" * 11 + b"\0" + b" " * 8 + kind + bytes(100) + magic
    block = bytearray(block.ljust(512, b"\0"))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def archives():
    one, two = instance(1), instance(2)
    files = {"A/1.dcm": one, "A/2.dcm": two, "notes.txt": b"no image"}
    yield "deflated.zip", zip_of(files)
    yield "stored.zip", zip_of(files, zipfile.ZIP_STORED)
    yield "streamed.zip", zip_of(files, streamed=True)
    yield "cut.zip", zip_of(files)[:-60]
    yield "gnu.tar", tar_of({**files, "l" * 150 + ".dcm": one})
    yield "pax.tar", tar_of({"ö" * 80 + ".dcm": one}, tarfile.PAX_FORMAT)
    yield "plain.tar", tar_of(files, tarfile.USTAR_FORMAT)
    yield "files.tar.gz", gzip.compress(tar_of(files), mtime=0)
    yield "single.gz", gzip.compress(one, mtime=0)
    nested = {"inner.zip": zip_of(files), "inner.tar": tar_of(files), "inner.tgz": gzip.compress(tar_of(files), mtime=0)}
    yield "nested.zip", zip_of(nested)
    yield "nested-stored.zip", zip_of(nested, zipfile.ZIP_STORED)
    yield "nested-streamed.zip", zip_of(nested, streamed=True)
    yield "nested.tar", tar_of({**nested, "streamed.zip": zip_of(files, streamed=True)})
    yield "nested.zip.gz", gzip.compress(zip_of(nested), mtime=0)
    yield "many.zip", zip_of({f"{number}": b"" for number in range(300)}, zipfile.ZIP_STORED)
    yield from zip64_archives(files, nested)
    yield from archives_with_a_name_twice()


def zip64_archives(files, nested):
    yield "zip64.zip", zip64_of(files)
    yield "zip64-stored.zip", zip64_of(files, zipfile.ZIP_STORED)
    # The sizes behind the members have eight bytes each.
    yield "zip64-streamed.zip", zip64_of(files, streamed=True)
    yield "zip64-nested.zip", zip64_of({**nested, "wide.zip": zip64_of(files)}, zipfile.ZIP_STORED)
    yield "zip64.tar", tar_of({"wide.zip": zip64_of(files), "streamed.zip": zip64_of(files, streamed=True)})
    yield "zip64.zip.gz", gzip.compress(zip64_of(files), mtime=0)
    yield "zip64-cut.zip", zip64_of(files)[:-70]
    members = [(b"1", instance(1)), (b"2", instance(2))]
    yield "zip64-end.zip", zip64_end(members)
    yield "zip64-end-wide.zip", zip64_end(members, wide=True)
    yield "zip64-end-extended.zip", zip64_end(members, extended=b"\1\0\4\0more", wide=True)
    yield "zip64-program-before.zip", zip64_end(members, before=b"#!/bin/sh\n".ljust(300, b"#"), wide=True)


def archives_with_a_name_twice():
    one, two, three = (instance(number) for number in (1, 2, 3))
    same = [("A/1.dcm", one), ("A/2.dcm", two), ("A/1.dcm", three)]
    inner = [("inner.zip", zip_of({"1": one})), ("inner.zip", zip_of({"1": two})), ("inner.tar", tar_of(same))]
    with warnings.catch_warnings():
        # zipfile warns of what is wanted here.
        warnings.simplefilter("ignore")
        yield "twice.zip", zip_of(same)
        yield "twice-stored.zip", zip_of(same, zipfile.ZIP_STORED)
        yield "twice-streamed.zip", zip_of(same, streamed=True)
        yield "twice-zip64.zip", zip64_of(same)
        yield "twice-identical.zip", zip_of([("1", one)] * 3)
        yield "twice-nested.zip", zip_of([*inner, ("same.zip", zip_of(same))], zipfile.ZIP_STORED)
        # One that is named as the second of another would be.
        yield "twice-numbered.zip", zip_of([("1", one), ("1!/!/2", two), ("1", three)])
    yield "twice.tar", tar_of(same)
    yield "twice-pax.tar", tar_of([("ö" * 80 + ".dcm", one), ("ö" * 80 + ".dcm", two)], tarfile.PAX_FORMAT)
    yield "twice-long.tar", tar_of([("l" * 150, one), ("l" * 150, two)])
    yield "twice.tar.gz", gzip.compress(tar_of(same), mtime=0)
    yield "twice-nested.tar", tar_of([*inner, ("inner.zip", zip_of({"1": three}))])


def directory_record(kind, file_id, following=0, below=0, in_use=0xFFFF):
    record = b"".join(
        [
            struct.pack("<HH2sHI", 4, 0x1400, b"UL", 4, following),
            struct.pack("<HH2sHH", 4, 0x1410, b"US", 2, in_use),
            struct.pack("<HH2sHI", 4, 0x1420, b"UL", 4, below),
            _explicit(4, 0x1430, b"CS", kind),
            _explicit(4, 0x1500, b"CS", file_id) if file_id is not None else b"",
        ]
    )
    return bytes.fromhex("feff00e0") + struct.pack("<I", len(record)) + record


def media_directory(records):
    body = b"".join(records)
    return b"".join(
        [
            bytes(128) + b"DICM",
            _explicit(2, 2, b"UI", b"1.2.840.10008.1.3.10"),
            _explicit(2, 0x10, b"UI", b"1.2.840.10008.1.2.1"),
            _explicit(4, 0x1130, b"CS", b"DISC"),
            struct.pack("<HH2sHI", 4, 0x1200, b"UL", 4, 400),
            struct.pack("<HH2sHI", 4, 0x1202, b"UL", 4, 400),
            struct.pack("<HH2sHI", 4, 0x1220, b"SQ", 0, len(body)) + body,
        ]
    )


def media_directories():
    yield "whole", media_directory([directory_record(b"PATIENT", None, 0, 600), directory_record(b"IMAGE", b"IM1"), directory_record(b"IMAGE", b"IMAGES\\IM2"), directory_record(b"IMAGE", b"IMAGES\\IM3.DCM")])
    yield "missing", media_directory([directory_record(b"IMAGE", b"IM9"), directory_record(b"IMAGE", b"IM1", in_use=0)])
    yield "empty", media_directory([])


def odd_data_sets():
    """Explicit data sets with what belongs elsewhere before them, and with junk in a sequence that the index keeps."""
    whole = data_set(b"1.2", b"1.3", b"1.4", b"odd")
    commands = struct.pack("<HHIIHHIH", 0, 0, 4, 10, 0, 0x100, 2, 1)
    yield "meta-before", _explicit(2, 0x10, b"UI", b"1.2.840.10008.1.2.4.70") + whole
    yield "commands-before", commands + whole
    junk = b"Test,Case19  "
    item = bytes.fromhex("feff00e0") + struct.pack("<I", len(junk)) + junk
    for name, content in {"text": junk, "junk-in-item": item, "junk-behind-item": item + junk}.items():
        yield name, struct.pack("<HH2sHI", 8, 0x51, b"SQ", 0, len(content)) + content + whole


def corpus():
    for name, data in archives():
        write("corpus/archive", name, data)
    for name, data in media_directories():
        write("corpus/dicomdir", name, data)
    for path in sorted((HERE.parent / "fixtures").rglob("*")):
        if path.is_file() and path.stat().st_size < 200_000 and path.suffix not in (".md", ".txt", ".py", ".sql"):
            data = path.read_bytes()[:16_384]
            write("corpus/file", path.name, data)
            if path.name.startswith("DICOMDIR"):
                write("corpus/dicomdir", path.name, path.read_bytes())
            if data[128:132] == b"DICM":
                for syntax in range(6):
                    write("corpus/stream", f"{path.name}-{syntax}", bytes([syntax, 200]) + data[132:4096])
    for name, data in odd_data_sets():
        write("corpus/stream", name, bytes([1, 7]) + data)
        write("corpus/file", name, bytes(128) + b"DICM" + _explicit(2, 0x10, b"UI", b"1.2.840.10008.1.2.1") + data)
    for name, data in [*frames(), *frame_lies()]:
        write("corpus/render", name, data)
    dataset = data_set(b"1.2", b"1.3", b"1.4", b"pixels")
    write("corpus/stream", "secondary", bytes([1, 7]) + dataset)
    write("corpus/pdu", "store", associate_rq(b"DCMDEX") + store_rq(1, b"1.4", dataset))
    write("corpus/pdu", "find", associate_rq(b"DCMDEX") + find_rq())
    for name, identifier in identifiers():
        for how in (0, 4, 8, 0xF0):
            write("corpus/identifier", f"{name.decode()}-{how}", bytes([how]) + identifier)


def frame(codec, columns, rows, samples, bits, stream, flags=0, photometric=1, query=b""):
    """An input of the target `render`: what the object states, a query, and the stream."""
    head = [codec, columns, rows, samples, bits, flags, bits, bits - 1, photometric, 0, 0, len(query)]
    return bytes(head) + query + stream


def first_fragment(path):
    """The first fragment behind the Basic Offset Table of an encapsulated object."""
    data = (HERE.parent / "fixtures" / path).read_bytes()
    at = data.rindex(bytes.fromhex("e07f1000")) + 12
    at += 8 + struct.unpack_from("<I", data, at + 4)[0]
    return data[at + 8 : at + 8 + struct.unpack_from("<I", data, at + 4)[0]]


def frames():
    rle = first_fragment("real/syntaxes/MR_small_RLE.dcm")
    wavelets = first_fragment("real/syntaxes/MR_small_jp2klossless.dcm")
    yield "rle", frame(0, 64, 64, 1, 16, rle, query=b"viewport=32,32")
    yield "jpeg-2000", frame(5, 64, 64, 1, 16, wavelets, flags=2, query=b"window=600,1600")
    yield "jpeg-ls", frame(7, 64, 64, 1, 16, first_fragment("real/syntaxes/MR_small_jpeg_ls_lossless.dcm"), flags=2)
    yield "native-grey", frame(255, 8, 8, 1, 16, bytes(range(128)), query=b"viewport=9,3,1,1,-4,4")
    yield "native-rgb", frame(255, 4, 4, 3, 8, bytes(range(48)), photometric=3)
    yield "native-palette", frame(255, 8, 8, 1, 8, bytes(range(64)), photometric=2)
    yield "native-bits", frame(255, 9, 9, 1, 1, bytes(range(11)), photometric=0)
    yield "native-float", frame(255, 4, 4, 1, 32, bytes(range(64)), flags=0x40)


def frame_lies():
    def size(columns, rows, tile_columns, tile_rows, style):
        siz = struct.pack(">HIIIIIIIIH", 0, columns, rows, 0, 0, tile_columns, tile_rows, 0, 0, 1) + bytes([7, 1, 1])
        return b"\xff\x4f\xff\x51" + struct.pack(">H", len(siz) + 2) + siz + style

    def style(levels, block, precincts=b""):
        cod = bytes([1 if precincts else 0, 0, 0, 1, 0, levels, block, block, 0, 1]) + precincts
        return b"\xff\x52" + struct.pack(">H", len(cod) + 2) + cod

    quantization = b"\xff\x5c" + struct.pack(">HB", 4, 0x40) + b"\x48"
    tile = b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 0, 0, 1) + b"\xff\x93" + bytes(64) + b"\xff\xd9"
    end = quantization + tile
    yield "j2k-tiles-of-one-pixel", frame(5, 255, 255, 1, 8, size(255, 255, 1, 1, style(0, 4) + end))
    yield "j2k-precincts-of-one-pixel", frame(5, 255, 255, 1, 8, size(255, 255, 255, 255, style(0, 4, b"\0") + end))
    yield "j2k-other-size", frame(5, 255, 255, 1, 8, size(1 << 31, 1 << 31, 1 << 31, 1 << 31, style(0, 4) + end))
    yield "j2k-no-tile-size", frame(5, 8, 8, 1, 8, size(8, 8, 0, 0, style(0, 4) + end))
    yield "j2k-33-levels", frame(5, 8, 8, 1, 8, size(8, 8, 8, 8, style(33, 4) + end))
    lossless = b"\xff\xd8\xff\xc3" + struct.pack(">HBHHBBBB", 11, 8, 8, 8, 1, 1, 0x11, 0)
    table = b"\xff\xc4" + struct.pack(">HB", 20, 0) + bytes([1] + [0] * 15) + b"\0"
    scan = lambda transform: b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, transform) + bytes(16) + b"\xff\xd9"
    yield "jpeg-lossless", frame(4, 8, 8, 1, 8, lossless + table + scan(0))
    yield "jpeg-point-transform", frame(4, 8, 8, 1, 8, lossless + table + scan(15))
    yield "jpeg-restarts", frame(4, 8, 8, 1, 8, lossless + b"\xff\xdd\0\4\0\1" + table + scan(0))
    yield "jpeg-other-size", frame(4, 9, 8, 1, 8, lossless + table + scan(0))
    start = lambda components: b"\xff\xd8\xff\xf7" + struct.pack(">HBHHB", 8 + 3 * len(components), 16, 8, 8, len(components)) + b"".join(bytes([each, 0x11, 0]) for each in components)
    preset = lambda *numbers: b"\xff\xf8\0\x0d\1" + struct.pack(">5H", *numbers)
    samples = lambda components, near, order: b"\xff\xda" + struct.pack(">HB", 6 + 2 * len(components), len(components)) + b"".join(bytes([each, 0]) for each in components) + bytes([near, order, 0])
    yield "jpeg-ls-noise", frame(7, 8, 8, 1, 16, start([1]) + samples([1], 0, 0) + bytes(range(1, 127)) * 2)
    yield "jpeg-ls-longest-codes", frame(7, 8, 8, 1, 16, start([1]) + samples([1], 0, 0) + bytes(5) + b"\1" + bytes(200))
    yield "jpeg-ls-odd-preset", frame(8, 8, 8, 1, 16, start([1]) + preset(65535, 65535, 1, 65535, 65535) + samples([1], 255, 0) + b"\x7f\xff\x7f" * 60)
    yield "jpeg-ls-one-component-twice", frame(7, 8, 8, 3, 16, start([1, 2, 3]) + samples([1, 1, 1], 0, 2) + b"\xaa" * 90)
    yield "jpeg-ls-runs", frame(7, 255, 255, 3, 16, start([1, 2, 3])[:9] + b"\0\xff\0\xff" + start([1, 2, 3])[13:] + samples([1, 2, 3], 0, 2) + b"\xff\x7f" * 900)
    yield "rle-offsets", frame(0, 8, 8, 1, 8, struct.pack("<II", 1, 0xFFFFFFFF) + bytes(56))
    yield "rle-many-segments", frame(0, 8, 8, 3, 32, struct.pack("<16I", *[15] * 16) + bytes(64))
    yield "window-of-nothing", frame(255, 8, 8, 1, 16, bytes(128), query=b"window=1e308,1e308,linear-exact")


def regressions():
    for name, data in frame_lies():
        write("regressions/render", name, data)
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
    for name, data in archive_lies():
        write("regressions/archive", name, data)
    for name, data in dicomdir_lies():
        write("regressions/dicomdir", name, data)


def archive_lies():
    one = instance(1)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = deflate.compress(bytes(4 << 20)) + deflate.flush()
    # Each member is the whole of the first one.
    yield "overlapping.zip", raw_zip([(b"0", 8, zeros, len(zeros), 4 << 20, None, b"")] + [(b"%d" % number, 8, b"", len(zeros), 4 << 20, 0, b"") for number in range(1, 400)])
    wide = struct.pack("<HHQQ", 1, 16, (1 << 64) - 1, (1 << 64) - 1)
    yield "zip64-sizes.zip", raw_zip([(b"wide", 0, one, 0xFFFFFFFF, 0xFFFFFFFF, None, wide)])
    yield "zip64-member.zip", raw_zip([(b"far", 0, one, len(one), len(one), 0xFFFFFFFF, struct.pack("<HHQ", 1, 8, (1 << 64) - 5))])
    for name, numbers in {"entries": ((1 << 64) - 1, 0, 0), "length": (1, (1 << 64) - 1, 0), "offset": (1, 46, (1 << 64) - 46)}.items():
        end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, numbers[0], *numbers) + struct.pack("<4sIQI", b"PK\6\7", 0, 0, 1)
        yield f"zip64-{name}.zip", raw_zip([(b"1", 0, one, len(one), len(one), None, b"")], 0xFFFFFFFF, 0xFFFFFFFF, end)
    yield "size-too-small.zip", raw_zip([(b"1", 0, one, len(one), 3, None, b"")])
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(one) + packer.flush()
    nothing = bytearray(raw_zip([(b"1", 8, packed, len(packed), 0, None, b"")]))
    for at in (14, nothing.index(b"PK\1\2") + 16):
        nothing[at : at + 4] = bytes(4)
    yield "size-of-nothing.zip", bytes(nothing)
    yield "directory-outside.zip", raw_zip([(b"1", 0, one, len(one), len(one), None, b"")], None, 0x7FFFFFFF)
    yield "leads-out.zip", zip_of({"../../../etc/passwd": one, "/etc/passwd": one, "..": one, "a/../../b": one})
    yield "separators.zip", zip_of({"a!/b": one, "a!": one, "!/": one, "a!!/b.zip": zip_of({"!/!": one})})
    yield "same-names.zip", raw_zip([(b"1", 0, one, len(one), len(one), None, b"")] * 3)
    yield "empty-names.tar", tar_header(b"", b"00000000000\0") + tar_header(b"a\0b", b"00000000000\0")
    yield "size-huge.tar", tar_header(b"1", b"77777777777\0") + one
    yield "size-binary.tar", tar_header(b"1", b"\x80\0\0\0" + b"\xff" * 8) + one
    yield "size-negative.tar", tar_header(b"1", b"\xff" * 12) + one
    yield "size-no-number.tar", tar_header(b"1", b"98765432109\0") + one
    pax = b"28 size=99999999999999999999\n"
    yield "pax-size.tar", tar_header(b"p", b"%011o\0" % len(pax), b"x") + pax.ljust(512, b"\0") + tar_header(b"1", b"00000000000\0")
    yield "pax-length.tar", tar_header(b"p", b"00000000020\0", b"x") + b"9999999 path=a\n".ljust(512, b"\0") + tar_header(b"1", b"00000000000\0")
    yield "long-name-huge.tar", tar_header(b"l", b"77777777777\0", b"L") + b"x" * 512
    yield "long-names.tar", (tar_header(b"l", b"00000000001\0", b"L") + b"x".ljust(512, b"\0")) * 60
    yield "sparse.tar", tar_header(b"s", b"00000000010\0", b"S", b"ustar  \0")[:482] + b"\1" + bytes(29) + b"\1" * 2048
    deep = one
    for _ in range(6):
        deep = zip_of({"deep.zip": deep})
    yield "deep.zip", deep
    deep = one
    for _ in range(6):
        deep = gzip.compress(deep, mtime=0)
    yield "deep.gz", deep
    # 1,5 GB twice deflated; what lies in an archive that lies in it is inflated as far as the
    # limit.
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(1_500)) + deflate.flush()
    yield "bomb.zip", zip_of({"inner.zip": raw_zip([(b"zeros", 8, zeros, len(zeros), 1_500 << 20, None, b"")])})
    yield "bomb.gz", gzip.compress(gzip.compress(zeros, 9, mtime=0), 9, mtime=0)


def dicomdir_lies():
    # What follows is what was before, and below it is itself.
    yield "cyclic", media_directory([directory_record(b"PATIENT", None, 400, 400), directory_record(b"IMAGE", b"IM1", 400, 400)])
    yield "offsets-outside", media_directory([directory_record(b"IMAGE", b"IM1", 0xFFFFFFFF, 0x7FFFFFFF)])
    outside = [b"..\\OUTSIDE", b"IMAGES\\..\\..\\OUTSIDE", b"/etc/passwd", b"..", b"\\etc\\passwd", b"", b"A" * 600, b"A\0B", b"../OUTSIDE", b"\x1b[2J", b"DICOMDIR", b"."]
    yield "leads-out", media_directory([directory_record(b"IMAGE", reference) for reference in outside])
    yield "nested", media_directory([])[:-12] + (struct.pack("<HH2sHI", 4, 0x1220, b"SQ", 0, 0xFFFFFFFF) + bytes.fromhex("feff00e0ffffffff")) * 500
    yield "huge", media_directory([]) + struct.pack("<HH2sHI", 4, 0x1500, b"UN", 0, 0xFFFFFFFE)
    yield "cut", media_directory([directory_record(b"IMAGE", b"IM1")])[:-3]
    yield "many", media_directory([directory_record(b"IMAGE", b"IM%d" % number) for number in range(200)])


if __name__ == "__main__":
    corpus()
    if "--regressions" in sys.argv:
        regressions()
