#!/usr/bin/env python3
"""Times `dcmdex export`, `report` and `copy` over a generated index, beside `dcmdex find --format csv` in the same run.

Usage: tools/bench/export.py [--instances 1600000] [--directory DIR] [--program DCMDEX --indexload INDEXLOAD]

Prints one line for each command: seconds, ratio to `find`, peak memory, bytes written. The tables are read again with DuckDB where it is
installed, and their rows are counted, before any time is printed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import fail, generate, options_with


def timed(command, cwd):
    """Runs a command. Returns seconds, seconds of processor, and peak memory in MB."""
    begun = time.monotonic()
    process = subprocess.Popen([str(part) for part in command], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        fail(f"{command}: {said.decode(errors='replace')}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def size(path):
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.exists() else 0


def rows_of(path):
    """The rows of a table. Another process counts them: a child has the peak memory of its parent as its own least one."""
    script = f"import duckdb; duckdb.sql('SET enable_progress_bar = false'); print(duckdb.sql(\"SELECT count(*) FROM '{path}'\").fetchone()[0])"
    counted = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    return int(counted.stdout) if counted.returncode == 0 else None


def files_to_copy(directory, count):
    """Small objects on the same disk, for `copy --by hard-link`."""
    import struct

    def element(group, number, vr, value):
        value += b"\0" if len(value) % 2 and vr == b"UI" else b" " if len(value) % 2 else b""
        return struct.pack("<HH2sH", group, number, vr, len(value)) + value

    for at in range(count):
        series = at // 200
        folder = directory / str(series)
        if at % 200 == 0:
            folder.mkdir(parents=True)
        uid = f"1.2.3.{series}.{at}".encode()
        syntax = b"1.2.840.10008.1.2.1"
        sop_class = b"1.2.840.10008.5.1.4.1.1.2"
        meta = element(2, 2, b"UI", sop_class) + element(2, 3, b"UI", uid) + element(2, 0x10, b"UI", syntax)
        body = element(8, 0x16, b"UI", sop_class) + element(8, 0x18, b"UI", uid) + element(8, 0x20, b"DA", b"20240101")
        body += element(8, 0x60, b"CS", b"CT") + element(0x10, 0x20, b"LO", b"P%d" % (series // 4))
        body += element(0x20, 0xD, b"UI", b"1.2.3.%d" % (series // 4)) + element(0x20, 0xE, b"UI", b"1.2.3.9.%d" % series)
        body += element(0x20, 0x13, b"IS", b"%d" % (at % 200 + 1))
        head = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
        (folder / f"{at}.dcm").write_bytes(bytes(128) + b"DICM" + head + meta + body)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=1_600_000)
    parser.add_argument("--files", type=int, default=40_000)
    arguments = options_with(parser, "indexload")
    program = arguments.program
    with tempfile.TemporaryDirectory(dir=arguments.directory) as place:
        place = Path(place)
        index = place / "x.db"
        generate(arguments, index)
        base = None
        image = ["--index", index, "--level", "IMAGE"]
        commands = [
            ("find csv", ["find", *image, "--format", "csv"], None),
            ("export csv", ["export", *image, "--out", "i.csv"], "i.csv"),
            ("export ndjson", ["export", *image, "--out", "i.ndjson"], "i.ndjson"),
            ("export parquet", ["export", *image, "--out", "i.parquet"], "i.parquet"),
            ("export parquet by month", ["export", *image, "--out", "m", "--format", "parquet", "--partition-by", "study-month"], "m"),
            ("export pseudonyms", ["export", *image, "--pseudonymise", "key", "--out", "p.parquet"], "p.parquet"),
            ("export series", ["export", "--index", index, "--level", "SERIES", "--out", "s.parquet"], "s.parquet"),
            ("report", ["report", "--index", index, "--html", "r.html", "--csv", "r.csv"], "r.html"),
        ]
        for name, command, out in commands:
            seconds, processor, memory = timed([program, *command], place)
            base = base or processor
            rows = rows_of(place / out) if out and out.startswith("i.") else None
            if rows not in (None, arguments.instances):
                fail(f"{name}: {rows} rows instead of {arguments.instances}")
            written = size(place / out) / 1e6 if out else 0
            print(f"{name:<26} {seconds:7.2f} s {processor:7.2f} s CPU {processor / base:6.2f} x find {memory:7.1f} MB {written:9.1f} MB written")
            sys.stdout.flush()
        files_to_copy(place / "archive", arguments.files)
        subprocess.run([program, "scan", "--quiet", "--index", place / "f.db", place / "archive"], check=True, stdout=subprocess.DEVNULL)
        for by in ("hard-link", "symbolic-link", "copy"):
            command = [program, "copy", "--index", "f.db", "--to", by, "--by", by]
            seconds, processor, memory = timed(command, place)
            print(f"copy by {by:<18} {seconds:7.2f} s {processor:7.2f} s CPU {arguments.files / seconds:9.0f} files/s {memory:7.1f} MB")


if __name__ == "__main__":
    main()
