#!/usr/bin/env python3
"""Backup, relocation and rebuilding: how long they take, how much memory, and what C-STORE notices.

    tools/bench/operations.py [--instances 1600000] [--folder DIR] [--binary FILE]

An index is filled by indexload. A node then takes C-STORE from 16 associations, alone and while backups are
made one after the other. `relocate` moves all paths there and back. `rebuild` indexes what the node has
received, after its index was taken away, beside a scan of copies of the same files.
"""

import argparse
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from common import RELEASE, Listener, build, commit, fail, figures, free_port, machine


def run(command, expected=(0,)):
    """Runs a command, and returns its seconds, its peak memory in MB, and its output."""
    begun = time.monotonic()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in expected:
        fail(f"{command} ended with {code}: {out[-500:]}")
    return time.monotonic() - begun, usage.ru_maxrss / 1024, out


class Backups(threading.Thread):
    """Makes one backup after the other until it is told to stop."""

    def __init__(self, binary, index, to):
        super().__init__()
        self.command = [binary, "backup", to, "--keep", "2", "--index", index]
        self.stop, self.begun, self.made = threading.Event(), threading.Event(), []

    def run(self):
        while not self.stop.is_set():
            self.begun.set()
            self.made.append(run(self.command)[:2])


def store(binary, folder, count, seed, backups):
    port = free_port()
    index, objects = folder / "index.db", folder / "objects"
    with open(folder / "log", "ab") as log:
        command = [binary, "serve", "--index", index, "--storage", objects, "--port", str(port)]
        with Listener(command, port, log) as node:
            if backups:
                backups.start()
                backups.begun.wait()
            sending = [RELEASE / "storeload", "--to", node.address, "--associations", "16", "--count", str(count), "--json"]
            _, _, out = run([*sending, "--seed", str(seed)])
            if backups:
                backups.stop.set()
                backups.join()
    return figures(out, count)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=1_600_000)
    parser.add_argument("--count", type=int, default=20_000, help="objects that are sent")
    parser.add_argument("--folder", type=Path, help="where to work [default: the directory for temporary files]")
    parser.add_argument("--index", type=Path, help="an index that indexload has filled, to save the time for that")
    parser.add_argument("--binary", type=Path, help="dcmdex [default: the release build, made first]")
    options = parser.parse_args()
    if options.binary is None:
        build("indexload", "storeload")
    binary = (options.binary or RELEASE / "dcmdex").resolve()
    print(f"{machine()}; {commit()}; {options.instances} instances")
    with tempfile.TemporaryDirectory(dir=options.folder) as directory:
        folder = Path(directory)
        index = folder / "index.db"
        if options.index:
            shutil.copy(options.index, index)
        else:
            run([RELEASE / "indexload", index, str(options.instances)])
        (folder / "backup").mkdir()

        for name, backups in (("alone", None), ("beside backups", Backups(binary, index, folder / "backup"))):
            got = store(binary, folder, options.count, 1 if backups is None else 2, backups)
            print(f"C-STORE {name}: {got['rate']:.0f}/s, p50 {got['p50']:.3f} ms, p99 {got['p99']:.3f} ms, max {got['max']:.3f} ms")
            for seconds, memory in backups.made if backups else []:
                print(f"  backup: {seconds:.2f} s, {memory:.0f} MB")
        seconds, memory, _ = run([binary, "backup", folder / "backup", "--index", index])
        print(f"backup, idle: {seconds:.2f} s, {memory:.0f} MB, {index.stat().st_size / 1e6:.0f} MB of index")
        newest = sorted((folder / "backup").glob("*.db"))[-1]
        seconds, memory, _ = run([binary, "backup", "--verify", newest])
        print(f"backup --verify: {seconds:.2f} s, {memory:.0f} MB")

        connection = sqlite3.connect(f"file:{index}?mode=ro", uri=True)
        path = connection.execute("SELECT path FROM directory WHERE place = 0 LIMIT 1").fetchone()[0]
        connection.close()
        old = "/" + path.split("/")[1]
        for source, target in ((old, "/relocated"), ("/relocated", old)):
            seconds, memory, out = run([binary, "relocate", source, target, "--unseen", "--index", index])
            print(f"relocate: {seconds:.2f} s, {memory:.0f} MB; {out.strip()}")

        index.rename(folder / "away.db")
        for suffix in ("-turn", "-wal", "-shm"):
            (folder / f"index.db{suffix}").unlink(missing_ok=True)
        objects = folder / "objects"
        files = sum(1 for path in objects.rglob("*.dcm"))
        seconds, memory, _ = run([binary, "rebuild", "--index", index, "--storage", objects])
        print(f"rebuild: {files / seconds:.0f} objects/s, {memory:.0f} MB")
        shutil.copytree(objects, folder / "copies")
        seconds, memory, _ = run([binary, "scan", folder / "copies", "--index", folder / "scan.db"], (0, 1))
        print(f"scan of as many files: {files / seconds:.0f} files/s, {memory:.0f} MB")


if __name__ == "__main__":
    main()
