#!/usr/bin/env python3
"""Times `dcmdex scan` beside a bare read of the same files and beside other scanners; prints a table.

    tools/bench/scan.py --files 100000 --work DIR
    tools/bench/scan.py --corpus DIR --work DIR

The first makes the corpus in DIR/corpus-FILES-SEED if it is not there. The second takes an archive
that the generator `corpus` wrote, with DIR.uids beside it.

Every tool must find the same SOP Instance UIDs (or files, where it prints files) before a time is
taken. Runs are interleaved, so that a slow minute of the machine hits all alike. The page cache is
warm unless --cold is given, which needs root and drops the caches before each run. Needs
scripts/peers; standard library only.
"""

import argparse
import hashlib
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import PYTHON, RELEASE, ROOT, build, commit, fail, machine

# What the others are asked for; the index of dcmdex holds more.
KEYS = {
    "PatientName": "0010,0010", "PatientID": "0010,0020", "StudyInstanceUID": "0020,000d", "StudyDate": "0008,0020",
    "AccessionNumber": "0008,0050", "StudyDescription": "0008,1030", "SeriesInstanceUID": "0020,000e",
    "Modality": "0008,0060", "SeriesNumber": "0020,0011", "SeriesDescription": "0008,103e",
    "SOPInstanceUID": "0008,0018", "InstanceNumber": "0020,0013",
}  # fmt: skip


def fingerprint(lines):
    """One number for a set of lines, whatever their order."""
    total = count = 0
    for line in lines:
        total += int.from_bytes(hashlib.blake2b(line.encode(), digest_size=16).digest(), "big")
        count += 1
    return count, total % (1 << 128)


def lines_of(command, *, only=None):
    done = subprocess.run([str(part) for part in command], capture_output=True, check=False)
    lines = done.stdout.decode(errors="replace").splitlines()
    return [line for line in lines if only is None or only(line)]


# Starts a command, waits, writes what it used to a file. It is a process of its own. Linux counts
# the memory of a process that starts another one into the peak of the new one, and this script
# grows.
LAUNCH = """
import os, sys, time
used, command = sys.argv[1], sys.argv[2:]
begun = time.perf_counter()
child = os.posix_spawn(command[0], command, os.environ)
_, status, usage = os.wait4(child, 0)
with open(used, "w") as out:
    print(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, file=out)
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""


class Run:
    """One child process to its end: wall time, processor time, peak memory."""

    def __init__(self, command):
        with tempfile.NamedTemporaryFile() as used:
            launch = [sys.executable, "-I", "-S", "-c", LAUNCH, used.name, *(str(part) for part in command)]
            done = subprocess.run(launch, capture_output=True, check=False)
            if done.returncode != 0:
                fail(f"{command[0]} ended with {done.returncode}: {done.stderr.decode(errors='replace')[-800:]}")
            self.seconds, self.cpu, self.rss_mb = map(float, used.read().split())
        self.output = done.stdout.decode(errors="replace")


class Tool:
    """Something that goes over the corpus. `check` returns the fingerprint of what it found."""

    def __init__(self, name, command, check, want, runs=None, prepare=None):
        self.name, self.command, self.check, self.want = name, command, check, want
        self.most_runs, self.prepare, self.runs = runs, prepare, []


def tools(options, corpus, uids, files, scratch):
    bound = RELEASE / "bound"

    def read_bound(name, *flags):
        # What the plain bound reads has no names; its `--parse --print` prints them.
        shown = [bound, "--parse", "--print", corpus]
        return Tool(name, lambda: [bound, *flags, corpus], lambda: fingerprint(lines_of(shown)), uids)

    yield read_bound("bound: walk + open + read 8 KiB, 1 thread")
    yield read_bound("bound: walk + open + read 8 KiB, 2 threads", "--threads", "2")
    yield read_bound("bound: read + minimal parse, 1 thread", "--parse")
    yield read_bound("bound: read + minimal parse, 2 threads", "--parse", "--threads", "2")
    yield read_bound("bound: the same without read-ahead", "--parse", "--threads", "2", "--random")
    if options.cold:
        for threads in ("16", "32", "64"):
            name = f"bound: read + minimal parse, {threads} threads, without read-ahead"
            yield read_bound(name, "--parse", "--threads", threads, "--random")

    fresh = iter(scratch / f"scan-{number}.db" for number in range(1_000))
    index = scratch / "none"

    def scan(*flags, again=False):
        nonlocal index
        index = index if again else next(fresh)
        return [RELEASE / "dcmdex", "scan", "--index", index, "--json", *flags, corpus]

    def indexed():
        db = sqlite3.connect(f"file:{index}?mode=ro", uri=True)
        return fingerprint(uid for (uid,) in db.execute("SELECT sop_instance_uid FROM instances"))

    def summary(run, field):
        last = json.loads(run.output.splitlines()[-1])
        if last.get(field) != uids[0] or last.get("failed") != 0:
            fail(f"dcmdex scan reports {last}, expected {field} = {uids[0]}")

    def first_scan():
        summary(Run(scan()), "indexed")
        return indexed()

    def second_scan():
        summary(Run(scan(again=True)), "unchanged")
        return indexed()

    yield Tool("**dcmdex scan**, new index", scan, first_scan, uids)
    yield Tool("**dcmdex scan**, again, nothing changed", lambda: scan(again=True), second_scan, uids)
    if options.cold:
        for jobs in ("32", "64"):
            yield Tool(f"dcmdex scan --jobs {jobs}, new index", lambda jobs=jobs: scan("--jobs", jobs), first_scan, uids)
    options.index_size = lambda: sum(
        Path(f"{index}{suffix}").stat().st_size for suffix in ("", "-wal") if Path(f"{index}{suffix}").exists()
    )

    if "dicomfind" not in options.skip:
        keys = [part for key in KEYS for part in ("-k", f"{key}=")]
        yield Tool(
            "dicomfind (no index written)",
            lambda: ["/usr/bin/dicomfind", *keys, corpus],
            lambda: fingerprint(lines_of(["/usr/bin/dicomfind", *keys, corpus])),
            files,
        )
    if "gdcmscanner" not in options.skip:
        tags = [part for tag in KEYS.values() for part in ("-t", tag)]
        looks_like_uid = lambda line: line[:2] in ("1.", "2.")  # noqa: E731
        yield Tool(
            "gdcmscanner (no index written)",
            lambda: ["/usr/bin/gdcmscanner", "-r", "-d", corpus, *tags],
            lambda: fingerprint(
                lines_of(["/usr/bin/gdcmscanner", "-r", "-d", corpus, "-t", "0008,0018", "-p"], only=looks_like_uid)
            ),
            uids,
        )
    if "pydicom" not in options.skip:
        rows = scratch / "pydicom.db"

        def index_again():
            rows.unlink(missing_ok=True)
            return [PYTHON, ROOT / "tools/bench/pydicom_index.py", corpus, rows]

        def pydicom_found():
            Run(index_again())
            return fingerprint(uid for (uid,) in sqlite3.connect(rows).execute("SELECT SOPInstanceUID FROM instances"))

        yield Tool("pydicom + sqlite3", index_again, pydicom_found, uids, runs=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder on the disk to measure: corpus and indexes")
    parser.add_argument("--corpus", type=Path, help="an existing corpus instead of a generated one")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--skip", nargs="*", default=[], choices=["dicomfind", "gdcmscanner", "pydicom"])
    parser.add_argument("--cold", action="store_true", help="drop the page cache before each run (root)")
    options = parser.parse_args()

    build("corpus", "bound")
    options.work.mkdir(parents=True, exist_ok=True)
    corpus = options.corpus or options.work / f"corpus-{options.files}-{options.seed}"
    manifest = corpus.with_name(corpus.name + ".uids")
    if not corpus.exists():
        make = ["--out", corpus, "--files", options.files, "--seed", options.seed, "--manifest", manifest]
        subprocess.run([str(part) for part in [RELEASE / "corpus", *make]], check=True)
    with open(manifest) as lines:
        uids = fingerprint(line.rstrip("\n") for line in lines)
    files = fingerprint(
        os.path.join(directory, name) for directory, _, names in os.walk(corpus) for name in names
    )

    scratch = Path(tempfile.mkdtemp(prefix="scan-bench-", dir=options.work))
    try:
        measured = list(tools(options, corpus, uids, files, scratch))
        for tool in measured:
            print(f"checking {tool.name}", file=sys.stderr)
            found = tool.check()
            if found != tool.want:
                fail(f"{tool.name} found {found[0]} of {tool.want[0]}, or not the same: no times are taken")
        for number in range(options.runs):
            for tool in measured:
                if tool.most_runs is not None and number >= tool.most_runs:
                    continue
                command = tool.command()
                if options.cold:
                    os.sync()
                    Path("/proc/sys/vm/drop_caches").write_text("3")
                print(f"run {number + 1}: {tool.name}", file=sys.stderr)
                tool.runs.append(Run(command))
        report(options, measured, uids[0])
    finally:
        shutil.rmtree(scratch)


def report(options, measured, count):
    median = {tool.name: statistics.median(run.seconds for run in tool.runs) for tool in measured}
    scan = next(seconds for name, seconds in median.items() if "new index" in name)
    size = options.index_size()
    print(f"- Machine: {machine()}.")
    print(f"- Corpus: {count:,} files, seed {options.seed}; page cache {'cold' if options.cold else 'warm'}.")
    print(f"- Commit {commit()}; {options.runs} interleaved runs; results found equal before the first one.")
    print(f"- Index: {size:,} bytes, {size / count:.1f} per instance (paths included).\n")
    print("| | files/s, median | runs, s | CPU, s | peak RSS, MB | dcmdex scan is |")
    print("|---|---:|---|---:|---:|---:|")
    for tool in measured:
        seconds = median[tool.name]
        runs = " ".join(f"{run.seconds:.2f}" for run in tool.runs)
        cpu = statistics.median(run.cpu for run in tool.runs)
        rss = max(run.rss_mb for run in tool.runs)
        print(f"| {tool.name} | {count / seconds:,.0f} | {runs} | {cpu:.2f} | {rss:.0f} | {seconds / scan:.2f}x |")


if __name__ == "__main__":
    main()
