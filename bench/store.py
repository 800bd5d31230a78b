#!/usr/bin/env python3
"""Times C-STORE into a new node, in several modes, and prints a table.

    bench/store.py --work DIR [--count 4000] [--runs 3]

After each run the number of Success, of rows in the index and of object files have to be the same. Runs are interleaved;
nothing is deleted before the last one (creating files right after a mass delete is slow on ext4). Standard library only; the
client is the example `storeload`.
"""

import argparse
import os
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import RELEASE, build, commit, fail, machine, serve

MODES = {"metadata only": ["--metadata-only"], "objects kept": []}
SIZES = [5_000, 16 * 1024, 512 * 1024]
ASSOCIATIONS = [1, 4, 16]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder on the disk to measure")
    parser.add_argument("--count", type=int, default=4_000, help="objects per run; a tenth of it at 512 KB")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    build("storeload")
    options.work.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="store-bench-", dir=options.work))
    cases = [(mode, size, parallel) for mode in MODES for size in SIZES for parallel in ASSOCIATIONS]
    results = {case: [] for case in cases}
    try:
        for number in range(options.runs):
            for case in cases:
                print(f"run {number + 1}: {case}", file=sys.stderr)
                results[case].append(once(options, scratch / f"{number}-{cases.index(case)}", *case))
    finally:
        shutil.rmtree(scratch)
    print(f"- Machine: {machine()}; client and node on the same cores.")
    print(f"- Commit {commit()}; {options.runs} interleaved runs; Success = rows = objects in each.\n")
    print("| mode | object, bytes | associations | instances/s, median | runs | MB/s | p50, ms | p99, ms | node RSS, MB |")
    print("|---|---:|---:|---:|---|---:|---:|---:|---:|")
    for (mode, size, parallel), runs in results.items():
        median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rates = " ".join(f"{run['rate']:.0f}" for run in runs)
        print(
            f"| {mode} | {size:,} | {parallel} | {median['rate']:,.0f} | {rates} | {median['mb']:.1f} | {median['p50']:.2f} "
            f"| {median['p99']:.2f} | {max(run['rss'] for run in runs):.0f} |"
        )


def once(options, folder, mode, size, parallel):
    folder.mkdir()
    index, objects = folder / "index.db", folder / "objects"
    count = options.count // 10 if size > 100_000 else options.count
    with open(folder / "log", "wb") as log, serve(index, objects, log, *MODES[mode]) as node:
        command = [RELEASE / "examples/storeload", "--to", node.address, "--associations", parallel]
        command += ["--count", count, "--size", size]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        rss = node.peak_rss_mb()
    if done.returncode != 0:
        fail(f"storeload: {done.stderr.strip()[-500:]}")
    got = re.match(
        r"(?P<success>\d+) Success of .*: (?P<rate>\d+) instances/s, (?P<mb>[\d.]+) MB/s; p50 (?P<p50>[\d.]+) ms, "
        r"p99 (?P<p99>[\d.]+) ms",
        done.stdout,
    )
    if got is None:
        fail(f"storeload said: {done.stdout}")
    success = int(got["success"])
    rows = sqlite3.connect(f"file:{index}?mode=ro", uri=True).execute("SELECT count(*) FROM instances").fetchone()[0]
    kept = sum(name.endswith(".dcm") for _, _, names in os.walk(objects) for name in names)
    if success != count or rows != count or kept != (0 if mode == "metadata only" else count):
        fail(f"{count} sent, {success} Success, {rows} rows, {kept} object files")
    return {"rate": float(got["rate"]), "mb": float(got["mb"]), "p50": float(got["p50"]), "p99": float(got["p99"]), "rss": rss}


if __name__ == "__main__":
    main()
