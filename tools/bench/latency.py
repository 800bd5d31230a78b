#!/usr/bin/env python3
"""Times `dcmdex scan` over a file system that takes some milliseconds for each answer.

    tools/bench/latency.py --archive CORPUS [--work DIR] [--milliseconds 2] [--jobs 4 16 64 128 0] [--binary FILE ...]

The archive is shown through slowfs.c, which this script builds: it needs gcc, pkg-config, libfuse3-dev and
fusermount3. Jobs 0 means the default. A new file costs three calls, so the bound is jobs / (3 * latency).
Each run makes a new index, and all of them must hold the same number of instances. Several binaries take
turns. The calls of FUSE themselves take processor time, on the same processors.
"""

import argparse
import os
import shlex
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path

from common import RELEASE, ROOT, build, commit, fail, machine

CALLS = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, required=True, help="a folder that the generator `corpus` has made")
    parser.add_argument("--work", type=Path, help="where to work [default: the directory for temporary files]")
    parser.add_argument("--milliseconds", type=float, default=2)
    parser.add_argument("--jobs", type=int, nargs="+", default=[4, 16, 64, 128, 0])
    parser.add_argument("--binary", type=Path, nargs="+", help="dcmdex [default: the release build, made first]")
    options = parser.parse_args()
    if not options.binary:
        build()
    binaries = options.binary or [RELEASE / "dcmdex"]
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        scratch = Path(scratch)
        slowfs, mount = scratch / "slowfs", scratch / "mount"
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=True)
        source = ROOT / "tools/bench/slowfs.c"
        subprocess.run(["gcc", "-O2", "-o", slowfs, source, *shlex.split(flags.stdout)], check=True)
        mount.mkdir()
        settings = {"SLOWFS_ROOT": options.archive.resolve(), "SLOWFS_MS": options.milliseconds}
        environment = os.environ | {name: str(value) for name, value in settings.items()}
        server = subprocess.Popen([slowfs, "-f", "-o", "max_threads=300", mount], env=environment, stderr=subprocess.DEVNULL)
        try:
            wait_for(mount)
            run(options, binaries, scratch, mount)
        finally:
            subprocess.run(["fusermount3", "-u", mount], check=False)
            server.wait()


def wait_for(mount):
    for _ in range(100):
        if os.path.ismount(mount):
            return
        time.sleep(0.1)
    fail("the slow file system is not mounted")


def run(options, binaries, scratch, mount):
    print(f"{machine()}; {commit()}; {options.milliseconds} ms for each call; load {os.getloadavg()[0]:.1f}\n")
    print("| jobs | bound, files/s | " + " | ".join(str(binary) for binary in binaries) + " |")
    print("|---:|---:|" + "---:|" * len(binaries))
    counts = set()
    for jobs in options.jobs:
        rates = []
        for binary in binaries:
            index = scratch / "index.db"
            flags = ["--jobs", str(jobs)] if jobs else []
            # Neither names nor attributes of the run before.
            time.sleep(1.5)
            begun = time.perf_counter()
            done = subprocess.run([binary, "scan", "--quiet", *flags, "--index", index, mount], stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - begun
            if done.returncode > 1:
                fail(f"{binary} ended with {done.returncode}")
            connection = sqlite3.connect(index)
            count = connection.execute("SELECT count(*) FROM instances").fetchone()[0]
            connection.close()
            counts.add(count)
            rates.append(f"{count / seconds:,.0f}")
            for file in scratch.glob("index.db*"):
                file.unlink()
        bound = f"{jobs * 1000 / options.milliseconds / CALLS:,.0f}" if jobs else ""
        print(f"| {jobs or 'default'} | {bound} | {' | '.join(rates)} |", flush=True)
    if len(counts) != 1:
        fail(f"the indexes hold different numbers of instances: {sorted(counts)}")


if __name__ == "__main__":
    main()
