#!/usr/bin/env python3
"""Times C-STORE into dcmdex and other nodes, beside what the disk alone makes durable; prints tables.

    tools/bench/store.py --work DIR [--count 4000] [--runs 3] [--all]

The generator `storeload` sends to all of them, with one request outstanding per association. Then
the unmodified dcmsend sends. Each run starts a new node on an empty folder of the same disk. A node
must say that it has what was sent; with dcmdex, Success = rows = object files. Runs are interleaved.
Nothing is deleted before the last one, because creating files right after a mass delete is slow on
ext4. --all takes every size with every number of associations, for dcmdex alone.

Peers: DCMTK and Orthanc (scripts/peers), and storescp of dicom-rs (`cargo install dicom-storescp
--root target/tools`, or DCMDEX_DICOM_STORESCP). A missing one is named. Standard library only.
"""

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from common import RELEASE, TARGET, Listener, build, commit, fail, figures, free_port, machine, serve
from retrieve import ct_slice

DICOM_STORESCP = os.environ.get("DCMDEX_DICOM_STORESCP", str(TARGET / "tools/bin/dicom-storescp"))
SMALL, LARGE = 16 * 1024, 512 * 1024


def object_files(folder):
    """Counts object files under their final names. dcmdex keeps another name of an object in `.incoming/` for a moment."""
    count = 0
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        count += sum(not name.startswith(".") for name in names)
    return count


class Dcmdex:
    called = "DCMDEX"

    def __init__(self, *, metadata_only=False, durability="full"):
        self.metadata_only, self.durability = metadata_only, durability
        self.name = f"dcmdex, {'metadata only' if metadata_only else 'objects kept'}, `durability = {durability}`"
        self.durable = durability == "full"

    def start(self, folder, log):
        self.folder = folder
        config = folder / "dcmdex.toml"
        config.write_text(f'[store]\ndurability = "{self.durability}"\n')
        flags = ["--config", config] + (["--metadata-only"] if self.metadata_only else [])
        return serve(folder / "index.db", folder / "objects", log, *flags)

    def count(self):
        index = sqlite3.connect(f"file:{self.folder / 'index.db'}?mode=ro", uri=True)
        rows = index.execute("SELECT count(*) FROM instances").fetchone()[0]
        index.close()
        kept = object_files(self.folder / "objects")
        if kept != (0 if self.metadata_only else rows):
            fail(f"{rows} rows, {kept} object files")
        return rows


class DicomRs:
    name, called, durable = "storescp of dicom-rs, non-blocking", "STORE-SCP", False
    program = DICOM_STORESCP

    def start(self, folder, log):
        self.folder = folder / "objects"
        self.folder.mkdir()
        port = free_port()
        return Listener([self.program, "-n", "-o", self.folder, "-p", port, "-m", 131_072], port, log)

    def count(self):
        return object_files(self.folder)


class Dcmtk(DicomRs):
    name, called = "storescp of DCMTK, `--fork +B`", "STORESCP"
    program = "/usr/bin/storescp"

    def start(self, folder, log):
        self.folder = folder / "objects"
        self.folder.mkdir()
        port = free_port()
        return Listener([self.program, "--fork", "+B", "-pdu", 131_072, "-od", self.folder, port], port, log)


class Orthanc:
    name, called, durable = "Orthanc", "ORTHANC", False
    program = "/usr/sbin/Orthanc"

    def start(self, folder, log):
        port, self.http = free_port(), free_port()
        settings = {
            "DicomAet": "ORTHANC", "DicomPort": port, "HttpPort": self.http, "AuthenticationEnabled": False,
            "StorageDirectory": str(folder / "objects"), "IndexDirectory": str(folder / "objects"), "Plugins": [],
            "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": False, "DicomThreadsCount": 64,
        }  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(settings))
        return Listener([self.program, folder / "orthanc.json"], port, log)

    def count(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/statistics") as answer:
            return json.load(answer)["CountInstances"]


class DiskBound:
    """What the disk makes durable, without a node."""

    durable = True

    def __init__(self, name, *flags):
        self.name, self.flags = name, flags

    def run(self, folder, size, _parallel, count):
        command = [*Listener.prefix, RELEASE / "syncload", *self.flags, "--json", "--count", count, "--size", size, folder / "bound"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)


def run_once(contestant, folder, size, parallel, count):
    folder.mkdir()
    if isinstance(contestant, DiskBound):
        return contestant.run(folder, size, parallel, count)
    with open(folder / "log", "wb") as log, contestant.start(folder, log) as node:
        command = [RELEASE / "storeload", "--to", node.address, "--called", contestant.called]
        command += ["--associations", parallel, "--count", count, "--size", size, "--json"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            fail(f"storeload to {contestant.name}: {done.stderr.strip()[-500:]}")
        rss, stored = node.peak_rss_mb(), contestant.count()
    if stored != count:
        fail(f"{contestant.name}: {count} sent, {stored} stored")
    got = figures(done.stdout, count)
    return {**{key: got[key] for key in ("rate", "mb", "p50", "p99")}, "rss": rss}


def dcmsend(contestant, folder, files):
    folder.mkdir()
    count = object_files(files)
    with open(folder / "log", "wb") as log, contestant.start(folder, log) as node:
        begun = time.perf_counter()
        command = ["/usr/bin/dcmsend", "-aec", contestant.called, "127.0.0.1", str(node.port), "+sd", str(files)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds, rss, stored = time.perf_counter() - begun, node.peak_rss_mb(), contestant.count()
    if done.returncode != 0 or stored != count:
        fail(f"dcmsend to {contestant.name}: {count} sent, {stored} stored; {done.stderr.strip()[-500:]}")
    return {"rate": count / seconds, "rss": rss}


def cases(everything):
    """(size, associations, share of --count, contestants)"""
    durable, in_memory = Dcmdex(), Dcmdex(durability="os")
    headers = Dcmdex(metadata_only=True)
    if everything:
        for size in (5_000, SMALL, LARGE):
            for parallel in (1, 4, 16):
                yield size, parallel, 10 if size == LARGE else 1, [durable, in_memory, headers]
        return
    others = [found for found in (DicomRs(), Dcmtk(), Orthanc()) if shutil.which(found.program)]
    parallel_sync = DiskBound("disk alone: a file each, fdatasync, 16 threads", "--threads", 16)
    sequential = DiskBound("disk alone: one file from start to end, one fdatasync", "--sequential")
    yield SMALL, 16, 1, [parallel_sync, durable, headers, in_memory, *others]
    yield LARGE, 16, 5, [sequential, durable, headers, in_memory, *others]
    yield SMALL, 64, 1, [durable, headers]
    yield LARGE, 64, 5, [durable, headers]
    # Few: a node that stalls for Nagle's algorithm takes 44 ms for each.
    yield SMALL, 1, 10, [durable, headers, in_memory, *others]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder on the disk to measure")
    parser.add_argument("--count", type=int, default=4_000, help="objects per run; a fifth of it at 512 KB, a tenth with one association")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="dcmdex alone, every size with every number of associations")
    options = parser.parse_args()
    build("storeload", "syncload")
    for peer in (DicomRs, Dcmtk, Orthanc):
        if not options.all and not shutil.which(peer.program):
            print(f"not here, left out: {peer.name} ({peer.program})", file=sys.stderr)
    options.work.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="store-bench-", dir=options.work))
    folders = (scratch / str(number) for number in range(1_000_000))
    wanted = list(cases(options.all))
    results = {(number, contestant): [] for number, case in enumerate(wanted) for contestant in case[3]}
    senders = {} if options.all else {each: [] for each in wanted[0][3][1:]}
    try:
        files = scratch / "files"
        files.mkdir()
        for number in range(1, options.count // 2 + 1):
            (files / f"{number:06}.dcm").write_bytes(ct_slice(number, SMALL))
        few = scratch / "few"
        few.mkdir()
        for file in sorted(files.iterdir())[:100]:
            shutil.copy(file, few)
        for run in range(options.runs):
            for (number, contestant), runs in results.items():
                size, parallel, share, _ = wanted[number]
                print(f"run {run + 1}: {size} bytes, {parallel} associations, {contestant.name}", file=sys.stderr)
                runs.append(run_once(contestant, next(folders), size, parallel, options.count // share))
            for contestant, runs in senders.items():
                print(f"run {run + 1}: dcmsend to {contestant.name}", file=sys.stderr)
                # The stall of Nagle's algorithm makes some nodes two hundred times slower: they get
                # fewer.
                runs.append(dcmsend(contestant, next(folders), files if isinstance(contestant, Dcmdex) else few))
    finally:
        shutil.rmtree(scratch)
    report(options, wanted, results, senders)


def report(options, wanted, results, senders):
    print(f"- Machine: {machine()}; client and node on the same cores.")
    print(f"- Commit {commit()}; {options.runs} interleaved runs, the median; what was sent is what each node has.\n")
    print("| object, bytes | associations | node | instances/s | runs | MB/s | p50, ms | p99, ms | peak RSS, MB |")
    print("|---:|---:|---|---:|---|---:|---:|---:|---:|")
    for (number, contestant), runs in results.items():
        size, parallel, _, _ = wanted[number]
        median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rates = " ".join(f"{run['rate']:.0f}" for run in runs)
        rest = f"{median['p50']:.2f} | {median['p99']:.2f} | {max(run['rss'] for run in runs):.0f}" if "p50" in median else " | | "
        print(
            f"| {size:,} | {parallel} | {contestant.name}{'' if contestant.durable else ' (not durable)'} | {median['rate']:,.0f} "
            f"| {rates} | {median['mb']:.1f} | {rest} |"
        )
    if not senders:
        return
    print(f"\nUnmodified dcmsend, one association, objects of {SMALL:,} bytes and a header:\n")
    print("| to | instances/s | runs |\n|---|---:|---|")
    for contestant, runs in senders.items():
        rates = " ".join(f"{run['rate']:.0f}" for run in runs)
        print(f"| {contestant.name} | {statistics.median(run['rate'] for run in runs):,.0f} | {rates} |")


if __name__ == "__main__":
    main()
