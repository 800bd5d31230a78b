#!/usr/bin/env python3
"""Times looks at a watched directory of unchanged files, and C-STORE beside them.

    tools/bench/watch.py --work DIR --archive DIR [--count 20000] [--associations 16] [--size 16384]

The archive is scanned first. Then a node watches it with looks one after the other, while objects are
sent. Every other run sends the same number of objects to a node that watches nothing. The first looks
of a run, before objects come, give the time of a look alone. The look reads the metadata of each file;
it is warm, because the scan came before. The peak of the node's memory comes from /proc. The index must
hold each file of the archive and each object exactly once. Standard library only; the client is the
generator `storeload`.
"""

import re
import shutil
import sqlite3
import statistics
import subprocess
import time
from pathlib import Path

from common import RELEASE, fail, run_beside, serve, start_storing, stored, storing_beside

# The fields of a line of the log about a look.
LOOK = re.compile(r"looked at a watched directory .*found=(?P<found>\d+).* elapsed_ms=(?P<elapsed>\d+)")


def main():
    options = storing_beside(__doc__, "what is watched: made by the generator `corpus`", 20_000, 16).parse_args()
    rows = run_beside(options, "watch", once, lambda scratch: scanned(options, scratch))
    print("| beside | instances/s | p50, ms | p99, ms | files | look alone, s | look beside, s | node's peak, MB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print("| {beside} | {rate:.0f} | {p50:.3f} | {p99:.3f} | {files:,} | {alone} | {meanwhile} | {peak:.0f} |".format(**row))
    rates = {name: statistics.median(int(row["rate"]) for row in rows if row["beside"] == name) for name in ("looks", "nothing")}
    print(f"\nC-STORE beside looks has {100 * rates['looks'] / rates['nothing']:.0f} % of its rate alone (medians).")


def scanned(options, scratch):
    """The index of the archive."""
    index = scratch / "index.db"
    scan = [RELEASE / "dcmdex", "scan", "--quiet", "--index", index, options.archive]
    subprocess.run([str(part) for part in scan], check=True, stdout=subprocess.DEVNULL)
    return index


def once(options, folder, watching, scanned):
    index, log, settings = folder / "index.db", folder / "log", folder / "dcmdex.toml"
    shutil.copy(scanned, index)
    # One look after the other. Looks that find nothing new are logged at debug.
    watch = f'[log]\nfilter = "info,dcmdex::cli::serve::watch_thread=debug"\n[[watch]]\npath = "{options.archive}"\nevery = "1s"\n'
    settings.write_text(watch if watching else "")
    before = count(index)
    with open(log, "wb") as lines, serve(index, folder / "objects", lines, "--config", settings) as node:
        if watching:
            wait_for_looks(log, 3)
        alone = [look for _, look in looks(log)]
        got = stored(start_storing(options, node.address), options)
        peak = node.peak_rss_mb()
    if count(index) != before + options.count:
        fail(f"{before} before, {options.count} Success, {count(index)} rows")
    subprocess.run([str(RELEASE / "dcmdex"), "check", "--index", str(index)], check=True, stdout=subprocess.DEVNULL)
    found = looks(log)
    meanwhile = [look for _, look in found[len(alone) :]]
    median = lambda times: f"{statistics.median(times) / 1000:.2f}" if times else "-"
    return {
        **got, "beside": "looks" if watching else "nothing", "files": found[0][0] if found else 0,
        "alone": median(alone), "meanwhile": median(meanwhile), "peak": peak,
    }


def looks(log):
    """Files and milliseconds of each look in a log."""
    return [(int(look["found"]), int(look["elapsed"])) for look in LOOK.finditer(log.read_text(errors="replace"))]


def wait_for_looks(log, wanted):
    for _ in range(6000):
        if len(looks(log)) >= wanted:
            return
        time.sleep(0.1)
    fail(f"no {wanted} looks in ten minutes: {log.read_text(errors='replace')[-500:]}")


def count(index):
    database = sqlite3.connect(f"file:{index}?mode=ro", uri=True)
    try:
        return database.execute("SELECT ifnull(sum(instance_count), 0) FROM study").fetchone()[0]
    finally:
        database.close()


if __name__ == "__main__":
    main()
