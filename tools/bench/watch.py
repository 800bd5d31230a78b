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

import argparse
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import RELEASE, build, commit, fail, machine, serve

# The fields of a line of the log about a look.
LOOK = re.compile(r"looked at a watched directory .*found=(?P<found>\d+).* elapsed_ms=(?P<elapsed>\d+)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder on the disk to measure")
    parser.add_argument("--archive", type=Path, required=True, help="what is watched: made by the generator `corpus`")
    parser.add_argument("--count", type=int, default=20_000, help="objects per run")
    parser.add_argument("--associations", type=int, default=16)
    parser.add_argument("--size", type=int, default=16 * 1024, help="bytes of an object")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    build("storeload")
    options.work.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="watch-bench-", dir=options.work))
    rows = []
    try:
        scanned = scratch / "index.db"
        scan = [str(RELEASE / "dcmdex"), "scan", "--quiet", "--index", str(scanned), str(options.archive)]
        subprocess.run(scan, check=True, stdout=subprocess.DEVNULL)
        for number in range(options.runs):
            for watching in (True, False):
                print(f"run {number + 1}, {'beside looks' if watching else 'alone'}", file=sys.stderr)
                folder = scratch / f"{number}-{watching}"
                folder.mkdir()
                shutil.copy(scanned, folder / "index.db")
                rows.append(once(options, folder, watching))
                shutil.rmtree(folder)
    finally:
        shutil.rmtree(scratch)
    print(f"- Machine: {machine()}; client and node on the same cores.")
    print(f"- Commit {commit()}; {options.count} objects of {options.size:,} bytes, {options.associations} associations.\n")
    print("| beside | instances/s | p50, ms | p99, ms | files | look alone, s | look beside, s | node's peak, MB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print("| {beside} | {rate} | {p50} | {p99} | {files:,} | {alone} | {meanwhile} | {peak} |".format(**row))
    rates = {name: statistics.median(int(row["rate"]) for row in rows if row["beside"] == name) for name in ("looks", "nothing")}
    print(f"\nC-STORE beside looks has {100 * rates['looks'] / rates['nothing']:.0f} % of its rate alone (medians).")


def once(options, folder, watching):
    index, log = folder / "index.db", folder / "log"
    settings = folder / "dcmdex.toml"
    # One look after the other: each rests for as long as it took, at most.
    settings.write_text(f'[[watch]]\npath = "{options.archive}"\nevery = "1s"\n' if watching else "")
    before = count(index)
    with open(log, "wb") as lines, serve(index, folder / "objects", lines, "--config", str(settings)) as node:
        if watching:
            wait_for_looks(log, 3)
        alone = [look for _, look in looks(log)]
        command = [RELEASE / "storeload", "--to", node.address, "--associations", options.associations]
        command += ["--count", options.count, "--size", options.size]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        status = Path(f"/proc/{node.process.pid}/status").read_text()
    got = re.match(
        r"(?P<success>\d+) Success of .*: (?P<rate>\d+) instances/s, .*; p50 (?P<p50>[\d.]+) ms, p99 (?P<p99>[\d.]+) ms",
        done.stdout,
    )
    if got is None or int(got["success"]) != options.count:
        fail(f"storeload said: {done.stdout} {done.stderr[-500:]}")
    if count(index) != before + options.count:
        fail(f"{before} before, {options.count} Success, {count(index)} rows")
    subprocess.run([str(RELEASE / "dcmdex"), "check", "--index", str(index)], check=True, stdout=subprocess.DEVNULL)
    found = looks(log)
    meanwhile = [look for _, look in found[len(alone) :]]
    median = lambda times: f"{statistics.median(times) / 1000:.2f}" if times else "-"
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) // 1024
    files = found[0][0] if found else 0
    return {
        **got.groupdict(), "beside": "looks" if watching else "nothing", "files": files, "alone": median(alone),
        "meanwhile": median(meanwhile), "peak": peak,
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
