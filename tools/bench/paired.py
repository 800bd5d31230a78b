#!/usr/bin/env python3
"""Times two binaries of dcmdex on the same work, in turn, and prints the ratios.

    tools/bench/paired.py BEFORE AFTER --work DIR [--pairs 6] [--only store find scan retrieve]

Each pair runs both, and every second pair runs them in the other order. So a slow minute of the
machine hits both alike. Each binary asks an index that it wrote itself. Counts and results are
compared before times. A ratio above 1 says that AFTER takes more time. The work: C-STORE
(metadata only, durable, not durable), `scan` new and again, C-FIND over the network, and C-GET of a
series. Standard library only; the clients are the load generators.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import RELEASE, build, commit, fail, machine, serve
from retrieve import SERIES, ct_slice

FILES, INSTANCES, SLICES = 100_000, 1_600_000, 300
STORES = {
    "C-STORE, metadata only, 16 KB, 16 associations": (["--metadata-only"], 16, 16384, 24_000),
    "C-STORE, 16 KB, durable, 1 association": ([], 1, 16384, 1_500),
    "C-STORE, 16 KB, durable, 16 associations": ([], 16, 16384, 12_000),
    "C-STORE, 0.5 MB, `durability = \"os\"`, 1 association": (["--config", "os.toml"], 1, 524_288, 800),
}
QUERIES = {
    "C-FIND, one study by UID": (["StudyInstanceUID={uid}", "PatientName"], 3_000),
    "C-FIND, names that begin with SMI": (["PatientName=SMI*", "StudyInstanceUID"], 300),
    "C-FIND, ten days": (["StudyDate=20200101-20200110", "StudyInstanceUID"], 3_000),
}


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def last_line(text):
    return json.loads(text.strip().splitlines()[-1])


def node(binary, index, home, log, *flags):
    return serve(index, home / "objects", log, *flags, binary=binary)


class Work:
    """One kind of work: `measure` returns seconds and what must be equal."""

    def __init__(self, binaries, options):
        self.binaries, self.options = binaries, options

    def home(self, name):
        home = self.options.work / name
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        return home

    def compare(self, name, measure, pairs=None):
        seconds, results = ([], []), set()
        for pair in range(pairs or self.options.pairs):
            for which in ((0, 1), (1, 0))[pair % 2]:
                taken, result = measure(which)
                seconds[which].append(taken)
                results.add(result)
        if len(results) > 1:
            fail(f"{name}: the results differ: {results}")
        ratios = sorted(after / before for before, after in zip(*seconds, strict=True))
        before, after = map(statistics.median, seconds)
        print(
            f"| {name} | {before:.3f} | {after:.3f} | {after / before:.2f} | "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |",
            flush=True,
        )


class Store(Work):
    def run(self):
        for name, (flags, associations, size, count) in STORES.items():
            self.compare(name, lambda which: self.store(which, flags, associations, size, count))  # noqa: B023

    def store(self, which, flags, associations, size, count):
        home = self.home("store")
        (home / "os.toml").write_text('[store]\ndurability = "os"\n')
        flags = [home / flag if flag == "os.toml" else flag for flag in flags]
        with open(home / "log", "wb") as log, node(self.binaries[which], home / "index.db", home, log, *flags) as peer:
            begun = time.perf_counter()
            code, text = run(
                RELEASE / "storeload", "--to", peer.address, "--associations", associations, "--count", count,
                "--size", size,
            )  # fmt: skip
            taken = time.perf_counter() - begun
        if code:
            fail(text)
        return taken, count


class Find(Work):
    def run(self):
        indexes = []
        for which, binary in enumerate(self.binaries):
            index = self.options.work / f"find{which}.db"
            # The generator is that of AFTER. BEFORE gets a copy, made before AFTER opens its own.
            if which == 0 and not index.exists():
                generator = self.options.indexload or RELEASE / "indexload"
                code, text = run(generator, index, INSTANCES)
                if code:
                    fail(text)
            elif which == 1:
                shutil.copyfile(indexes[0], index)
            indexes.append(index)
        code, text = run(
            self.binaries[0], "find", "--index", indexes[0], "--level", "STUDY", "PatientName=SMI*", "StudyInstanceUID",
            "--format", "csv",
        )  # fmt: skip
        header, *lines = text.splitlines()
        uid = lines[len(lines) // 2].split(",")[header.split(",").index("StudyInstanceUID")]
        logs = [open(self.options.work / f"find{which}.log", "wb") for which in (0, 1)]
        homes = [self.home(f"find{which}") for which in (0, 1)]
        with (
            node(self.binaries[0], indexes[0], homes[0], logs[0]) as before,
            node(self.binaries[1], indexes[1], homes[1], logs[1]) as after,
        ):
            for name, (keys, count) in QUERIES.items():
                keys = [part for key in keys for part in ("--key", key.format(uid=uid))]
                self.compare(name, lambda which: self.find((before, after)[which], keys, count), 2 * self.options.pairs)  # noqa: B023

    def find(self, peer, keys, count):
        _, text = run(RELEASE / "findload", "--to", peer.address, "--count", count, "--json", *keys)
        figures = last_line(text)
        return figures["seconds"], (figures["matches"], figures["failures"])


class Scan(Work):
    def run(self):
        corpus = self.options.work / "corpus"
        if not corpus.exists():
            run(RELEASE / "corpus", "--out", corpus, "--files", FILES)
        self.compare("scan of 100,000 files, new", lambda which: self.scan(which, corpus))
        self.compare("the same, again", lambda which: self.scan(which, corpus, again=True))

    def scan(self, which, corpus, again=False):
        home = self.options.work / f"scan{which}"
        if not again:
            self.home(home.name)
        begun = time.perf_counter()
        code, text = run(self.binaries[which], "scan", "-q", "--json", "--index", home / "index.db", corpus)
        taken = time.perf_counter() - begun
        if code > 1:
            fail(text)
        summary = last_line(text)
        return taken, tuple(summary[key] for key in ("found", "indexed", "unchanged", "failed"))


class Retrieve(Work):
    def run(self):
        files = self.home("slices")
        for number in range(1, SLICES + 1):
            (files / f"{number}.dcm").write_bytes(ct_slice(number, 524_288))
        homes = [self.home(f"retrieve{which}") for which in (0, 1)]
        for home, binary in zip(homes, self.binaries, strict=True):
            code, text = run(binary, "scan", "-q", "--index", home / "index.db", files)
            if code:
                fail(text)
        logs = [open(home / "log", "wb") for home in homes]
        with (
            node(self.binaries[0], homes[0] / "index.db", homes[0], logs[0]) as before,
            node(self.binaries[1], homes[1] / "index.db", homes[1], logs[1]) as after,
        ):
            self.compare("C-GET of 300 slices of 0.5 MB", lambda which: self.get((before, after)[which]))

    def get(self, peer):
        begun = time.perf_counter()
        code, text = run(
            RELEASE / "retrieveload", "--to", peer.address, "--level", "SERIES", "--uid", SERIES, "--times", 3,
        )  # fmt: skip
        taken = time.perf_counter() - begun
        if code:
            fail(text)
        return taken, code


KINDS = {"store": Store, "scan": Scan, "find": Find, "retrieve": Retrieve}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for indexes, objects and the corpus")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--indexload", type=Path, help="the generator of BEFORE, where its schema is an older one")
    parser.add_argument("--no-build", action="store_true", help="the load generators are built already")
    options = parser.parse_args()
    if not options.no_build:
        build("storeload", "findload", "indexload", "corpus", "retrieveload")
    options.work.mkdir(parents=True, exist_ok=True)
    binaries = [options.before.resolve(), options.after.resolve()]
    if not all(os.access(binary, os.X_OK) for binary in binaries):
        sys.exit("error: both binaries have to be there")
    print(f"- Machine: {machine()}. Commit {commit()}. {options.pairs} pairs, C-FIND twice as many.")
    print("| work | before, s | after, s | of the medians | median pair (range) |\n|---|---:|---:|---:|---:|")
    for kind in options.only:
        KINDS[kind](binaries, options).run()


if __name__ == "__main__":
    main()
