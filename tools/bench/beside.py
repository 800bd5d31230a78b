#!/usr/bin/env python3
"""Times C-STORE into a node while scans write the same index, and without them.

    tools/bench/beside.py --work DIR --archive DIR [--count 4000] [--associations 4] [--size 16384]

The archive is scanned into a new index and then read again (`--full`) for as long as objects are
sent. Every other run sends the same number of objects with no scan beside it. After each run the
index must agree with itself. It must hold each file of the archive, and each object answered with
Success, exactly once. Standard library only; the client is the generator `storeload`.
"""

import json
import sqlite3
import subprocess
import threading

from common import RELEASE, fail, run_beside, serve, start_storing, stored, storing_beside


def main():
    options = storing_beside(__doc__, "what is scanned: made by the generator `corpus`", 4_000, 4).parse_args()
    rows = run_beside(options, "beside", once)
    print("| beside | instances/s | p50, ms | p99, ms | longest, ms | files scanned meanwhile | files/s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print("| {beside} | {rate:.0f} | {p50:.3f} | {p99:.3f} | {max:.3f} | {files:,} | {speed:,.0f} |".format(**row))


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


def once(options, folder, scanning, _prepared):
    index, objects = folder / "index.db", folder / "objects"
    with open(folder / "log", "wb") as log, serve(index, objects, log) as node:
        scan = [RELEASE / "dcmdex", "scan", "--json", "--index", index, options.archive]
        scans = Scans(scan)
        if scanning:
            scans.start()
            scans.begun.wait()
        got = stored(start_storing(options, node.address), options)
        scans.stop.set()
        if scanning:
            scans.join()
    found = scans.summaries[0]["indexed"] if scanning else 0
    rows = sqlite3.connect(f"file:{index}?mode=ro", uri=True).execute("SELECT count(*) FROM instances").fetchone()[0]
    if rows != found + options.count:
        fail(f"{found} found, {options.count} Success, {rows} rows")
    subprocess.run([str(RELEASE / "dcmdex"), "check", "--index", str(index)], check=True, stdout=subprocess.DEVNULL)
    files = sum(summary["found"] for summary in scans.summaries)
    seconds = sum(summary["elapsed_seconds"] for summary in scans.summaries)
    beside = f"{len(scans.summaries)} scans" if scanning else "nothing"
    return {**got, "beside": beside, "files": files, "speed": files / seconds if seconds else 0}


if __name__ == "__main__":
    main()
