#!/usr/bin/env python3
"""Times C-STORE into a node while scans write the same index, and without them.

    tools/bench/beside.py --work DIR --archive DIR [--count 4000] [--associations 4] [--size 16384]

The archive is scanned into a new index and then read again (`--full`) for as long as objects are
sent. Every other run sends the same number of objects with no scan beside it. After each run the
index must agree with itself. It must hold each file of the archive, and each object answered with
Success, exactly once. Standard library only; the client is the generator `storeload`.
"""

import argparse
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from common import RELEASE, build, commit, fail, machine, serve


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder on the disk to measure")
    parser.add_argument("--archive", type=Path, required=True, help="what is scanned: made by the generator `corpus`")
    parser.add_argument("--count", type=int, default=4_000, help="objects per run")
    parser.add_argument("--associations", type=int, default=4)
    parser.add_argument("--size", type=int, default=16 * 1024, help="bytes of an object")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    build("storeload")
    options.work.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="beside-bench-", dir=options.work))
    rows = []
    try:
        for number in range(options.runs):
            for scanning in (True, False):
                print(f"run {number + 1}, {'beside scans' if scanning else 'alone'}", file=sys.stderr)
                folder = scratch / f"{number}-{scanning}"
                folder.mkdir()
                rows.append(once(options, folder, scanning))
    finally:
        shutil.rmtree(scratch)
    print(f"- Machine: {machine()}; client, node and scan on the same cores.")
    print(f"- Commit {commit()}; {options.count} objects of {options.size:,} bytes, {options.associations} associations.\n")
    print("| beside | instances/s | p50, ms | p99, ms | longest, ms | files scanned meanwhile | files/s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print("| {beside} | {rate} | {p50} | {p99} | {longest} | {files:,} | {speed:,.0f} |".format(**row))


class Scans(threading.Thread):
    """Scans, one after the other, until told to stop."""

    def __init__(self, command):
        super().__init__()
        self.command, self.stop = [str(part) for part in command], threading.Event()
        self.begun = threading.Event()
        self.summaries = []

    def run(self):
        again = []
        while not self.stop.is_set():
            with subprocess.Popen([*self.command, *again], stdout=subprocess.PIPE, text=True) as scan:
                self.begun.set()
                lines = scan.stdout.read().splitlines()
            self.summaries.append(json.loads(lines[-1]))
            again = ["--full"]


def once(options, folder, scanning):
    index, objects = folder / "index.db", folder / "objects"
    with open(folder / "log", "wb") as log, serve(index, objects, log) as node:
        scan = [RELEASE / "dcmdex", "scan", "--json", "--index", index, options.archive]
        scans = Scans(scan)
        if scanning:
            scans.start()
            scans.begun.wait()
        command = [RELEASE / "storeload", "--to", node.address, "--associations", options.associations]
        command += ["--count", options.count, "--size", options.size]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        scans.stop.set()
        if scanning:
            scans.join()
    got = re.match(
        r"(?P<success>\d+) Success of .*: (?P<rate>\d+) instances/s, .*; p50 (?P<p50>[\d.]+) ms, p99 (?P<p99>[\d.]+) ms, "
        r"max (?P<longest>[\d.]+) ms",
        done.stdout,
    )
    if got is None or int(got["success"]) != options.count:
        fail(f"storeload said: {done.stdout} {done.stderr[-500:]}")
    found = scans.summaries[0]["indexed"] if scanning else 0
    rows = sqlite3.connect(f"file:{index}?mode=ro", uri=True).execute("SELECT count(*) FROM instances").fetchone()[0]
    if rows != found + options.count:
        fail(f"{found} found, {options.count} Success, {rows} rows")
    subprocess.run([str(RELEASE / "dcmdex"), "check", "--index", str(index)], check=True, stdout=subprocess.DEVNULL)
    files = sum(summary["found"] for summary in scans.summaries)
    seconds = sum(summary["elapsed_seconds"] for summary in scans.summaries)
    beside = f"{len(scans.summaries)} scans" if scanning else "nothing"
    return {**got.groupdict(), "beside": beside, "files": files, "speed": files / seconds if seconds else 0}


if __name__ == "__main__":
    main()
