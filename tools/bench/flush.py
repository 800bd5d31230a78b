#!/usr/bin/env python3
"""Times C-STORE where a flush of the disk takes a while, beside other nodes; prints a table.

    tools/bench/flush.py --work DIR [--delays 0 2 5] [--seconds 6] [--runs 1]
        [--cases 16384x1 16384x16 16384x64 524288x1 524288x16] [--binary PATH ...] [--own-disk MIB]
        [--by strace|preload]

Each fsync, fdatasync and syncfs of a node gets longer by the delay, in milliseconds. That is a disk
whose flushes are slow and otherwise do not disturb one another. With `--by strace`, strace does it: it
works for each program, and it slows all system calls of the node. With `--by preload`, slowflush.c
does it, which slows nothing else. A delay of 0 runs without either. The bound is a program that overwrites one file and flushes once for each group, with as many
objects in a group as there are associations. The contestants run in turn, each on an empty folder.
The number of objects is chosen for each so that a run takes about --seconds.

ext4 does not use an inode again for some minutes after it was freed, and searches past such inodes
for each new file. So whoever has removed many files measures that search. --own-disk gives each run
a new ext4 in a file that is mounted by loop. It needs root.

Peers as in store.py. --binary adds other builds of dcmdex. Needs strace or gcc. Standard library only.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import store
from common import RELEASE, ROOT, Listener, build, commit, fail, machine, serve
from disks import Disk

FLUSHES = "fsync,fdatasync,syncfs"
JOURNAL = "journal_mib = 256\njournal_object_kib = 1024\n"


class Build(store.Dcmdex):
    """dcmdex as it was built elsewhere, or with other settings."""

    def __init__(self, binary=RELEASE / "dcmdex", name="dcmdex", settings="", **options):
        super().__init__(**options)
        self.binary, self.settings = binary, settings
        if name != "dcmdex" or settings:
            self.name = f"{name}, {self.name.split(', ', 1)[1]}"

    def start(self, folder, log):
        self.folder = folder
        config = folder / "dcmdex.toml"
        config.write_text(f'[store]\ndurability = "{self.durability}"\n{self.settings}')
        flags = ["--config", config] + (["--metadata-only"] if self.metadata_only else [])
        return serve(folder / "index.db", folder / "objects", log, *flags, binary=self.binary)


def preloaded(folder):
    """What a command line begins with, for each delay, whose flushes slowflush.c makes longer."""
    library = folder.absolute() / "slowflush.so"
    source = ROOT / "tools/bench/slowflush.c"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    return lambda milliseconds: ["env", f"LD_PRELOAD={library}", f"SLOWFLUSH_MS={milliseconds}"] if milliseconds else []


def traced(milliseconds):
    """What a command line begins with whose flushes strace makes longer."""
    if not milliseconds:
        return []
    inject = f"inject={FLUSHES}:delay_exit={milliseconds * 1000}"
    # -D: the node stays our child.
    return ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", f"trace={FLUSHES}", "-e", inject]


def contestants(binaries, parallel):
    bound = store.DiskBound("bound: one flush for each group", "--group", parallel)
    with_journal = Build(name="dcmdex with a journal", settings=JOURNAL)
    own = [Build(), with_journal, Build(metadata_only=True), Build(durability="os")]
    own += [Build(Path(binary), f"dcmdex at {binary}") for binary in binaries]
    others = [found for found in (store.DicomRs(), store.Dcmtk(), store.Orthanc()) if shutil.which(found.program)]
    return [bound, *own, *others]


def places(scratch, disk):
    """A folder for each run, on a new disk if there is one."""
    for number in range(1_000_000):
        if disk:
            disk.make()
        yield (disk.path if disk else scratch) / str(number)


def timed(contestant, folders, size, parallel, seconds):
    """A run of about so many seconds: a short one says how many objects that needs."""
    first = store.run_once(contestant, next(folders), size, parallel, max(2 * parallel, 20))
    count = min(max(int(first["rate"] * seconds), 2 * parallel, 20), 60_000, (4 << 30) // size)
    return store.run_once(contestant, next(folders), size, parallel, count)


def row(delay, size, parallel, contestant, runs):
    """A row of the table: medians, and the rate of each run if there are several."""
    median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    times = f"{median['p50']:.2f} | {median['p99']:.2f}" if "p50" in median else " | "
    durable = "" if contestant.durable else " (not durable)"
    rates = " ".join(f"{run['rate']:,.0f}" for run in runs)
    each = f" ({rates})" if len(runs) > 1 else ""
    return f"| {delay} | {size:,} | {parallel} | {contestant.name}{durable} | {median['rate']:,.0f}{each} | {times} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder on the disk to measure")
    parser.add_argument("--delays", type=int, nargs="+", default=[0, 5], help="of each flush, in milliseconds")
    cases = ["16384x1", "16384x16", "16384x64", "524288x1", "524288x16"]
    parser.add_argument("--cases", nargs="+", default=cases, metavar="BYTESxASSOCIATIONS")
    parser.add_argument("--by", choices=["strace", "preload"], default="strace", help="what makes the flushes longer")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--binary", nargs="+", default=[], help="other builds of dcmdex")
    parser.add_argument("--own-disk", type=int, default=0, metavar="MIB", help="a new ext4 of this size for each run")
    parser.add_argument("--only", default="", help="only contestants whose name has this in it")
    parser.add_argument("--no-build", action="store_true", help="measure what is built already")
    options = parser.parse_args()
    tool = {"strace": "strace", "preload": "gcc"}[options.by]
    if any(options.delays) and not shutil.which(tool):
        fail(f"a delay needs {tool}")
    if not options.no_build:
        build("storeload", "syncload")
    options.work.mkdir(parents=True, exist_ok=True)
    delayed = preloaded(options.work) if options.by == "preload" else traced
    print(f"- Machine: {machine()}; client and node on the same cores. Commit {commit()}; {options.runs} runs, the median.\n")
    print("| flush, ms more | object, bytes | associations | node | instances/s | p50, ms | p99, ms |")
    print("|---:|---:|---:|---|---:|---:|---:|", flush=True)
    for delay in options.delays:
        Listener.prefix = delayed(delay)
        for case in options.cases:
            size, parallel = (int(part) for part in case.split("x"))
            scratch = Path(tempfile.mkdtemp(prefix="flush-bench-", dir=options.work))
            disk = Disk(scratch, "disk", options.own_disk, measure=True) if options.own_disk else None
            folders = places(scratch, disk)
            try:
                wanted = [one for one in contestants(options.binary, parallel) if options.only in one.name]
                runs = {contestant: [] for contestant in wanted}
                for _ in range(options.runs):
                    for contestant in wanted:
                        print(f"{delay} ms, {case}: {contestant.name}", file=sys.stderr)
                        runs[contestant].append(timed(contestant, folders, size, parallel, options.seconds))
                for contestant in wanted:
                    print(row(delay, size, parallel, contestant, runs[contestant]), flush=True)
            finally:
                if disk:
                    disk.unmount()
                shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
