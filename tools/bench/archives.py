#!/usr/bin/env python3
"""Times `dcmdex scan` of the same files loose and as members of archives, and prints a table.

    tools/bench/archives.py --files 50000 --work DIR

Makes corpus and archives in DIR if they are not there. The archives hold the same files as the loose
corpus: headers with a little pixel data. Every index must hold the same SOP Instance UIDs before a
time is taken. Runs are interleaved, the page cache is warm. Standard library only.
"""

import argparse
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from common import RELEASE, build, commit, fail, machine
from scan import Run, fingerprint


def pack(corpus, work):
    """The corpus as archives, each in a folder of its own: name to path."""
    files = sorted(path for path in corpus.rglob("*") if path.is_file())
    for name, method in [("zip, stored", zipfile.ZIP_STORED), ("zip, deflated", zipfile.ZIP_DEFLATED)]:
        path = work / (corpus.name + "-" + name.replace(", ", "-") + ".zip")
        if not path.exists():
            with zipfile.ZipFile(path, "w", method) as archive:
                for file in files:
                    archive.write(file, file.relative_to(corpus))
        yield name, path
    for name, mode, end in [("tar", "w", ".tar"), ("tar.gz", "w:gz", ".tar.gz")]:
        path = work / (corpus.name + end)
        if not path.exists():
            with tarfile.open(path, mode, compresslevel=6) if "gz" in mode else tarfile.open(path, mode) as archive:
                for file in files:
                    archive.add(file, file.relative_to(corpus))
        yield name, path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder on the disk to measure")
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--pixels", type=int, default=2_048, help="bytes of pixel data in each file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    build("corpus")
    options.work.mkdir(parents=True, exist_ok=True)
    corpus = options.work / f"members-{options.files}-{options.seed}"
    manifest = corpus.with_name(corpus.name + ".uids")
    if not corpus.exists():
        make = ["--out", corpus, "--files", options.files, "--seed", options.seed, "--manifest", manifest]
        make += ["--sparse", options.pixels]
        subprocess.run([str(part) for part in [RELEASE / "corpus", *make]], check=True)
    with open(manifest) as lines:
        uids = fingerprint(line.rstrip("\n") for line in lines)
    places = {"loose files": corpus, **dict(pack(corpus, options.work))}
    scratch = Path(tempfile.mkdtemp(prefix="archive-bench-", dir=options.work))
    times = {name: [] for name in places}
    again = {name: [] for name in places}
    try:
        for number in range(options.runs + 1):
            for name, place in places.items():
                index = scratch / f"{number}-{place.name}.db"
                command = [RELEASE / "dcmdex", "scan", "--index", index, "--json", place]
                print(f"run {number}: {name}", file=sys.stderr)
                first, second = Run(command), Run(command)
                if number == 0:
                    # Also warms the page cache.
                    rows = sqlite3.connect(f"file:{index}?mode=ro", uri=True).execute("SELECT sop_instance_uid FROM instances")
                    found = fingerprint(uid for (uid,) in rows)
                    if found != uids:
                        fail(f"{name}: {found[0]} of {uids[0]} found, or not the same")
                else:
                    times[name].append(first)
                    again[name].append(second)
    finally:
        shutil.rmtree(scratch)
    print(f"- Machine: {machine()}.")
    print(f"- {uids[0]:,} files of one corpus, seed {options.seed}, {options.pixels:,} bytes of pixel data each; warm.")
    print(f"- Commit {commit()}; {options.runs} interleaved runs; the same instances found in each.\n")
    print("| | members/s, median | runs, s | CPU, s | peak RSS, MB | of loose | again, s |")
    print("|---|---:|---|---:|---:|---:|---:|")
    loose = statistics.median(run.seconds for run in times["loose files"])
    for name, runs in times.items():
        seconds = statistics.median(run.seconds for run in runs)
        shown = " ".join(f"{run.seconds:.2f}" for run in runs)
        cpu = statistics.median(run.cpu for run in runs)
        rss = max(run.rss_mb for run in runs)
        unchanged = statistics.median(run.seconds for run in again[name])
        rate = f"{uids[0] / seconds:,.0f}"
        print(f"| {name} | {rate} | {shown} | {cpu:.2f} | {rss:.0f} | {loose / seconds:.2f} | {unchanged:.2f} |")


if __name__ == "__main__":
    main()
