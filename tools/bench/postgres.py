#!/usr/bin/env python3
"""An index in PostgreSQL: a first load, its size, several nodes that store into it, and C-FIND beside an index file.

    tools/bench/postgres.py --work DIR [--instances 1600000] [--seconds 6] [--runs 2]

A server of Debian's packages starts on a free port, with 1 GB of shared buffers and durable commits. The
generator `indexload` fills a database and an index file with the same records. A node on each of them is
asked the same questions, and the matches are held against SQL on the index file. `serverload` stores as two
nodes do, into an empty database each time. It fails if the counters of the studies are wrong.
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import find_goals
from common import RELEASE, build, commit, fail, free_port, machine, serve

SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "4GB", "listen_addresses": "127.0.0.1", "max_connections": "200"}

# Associations of each of two nodes, studies that they share or nothing, and the goal in rows/s.
STORES = [(64, None, 20_000), (16, None, 8_000), (64, 20, 8_000)]


@contextlib.contextmanager
def server(folder):
    """A server with the superuser `dcmdex`. Gives the start of the address of its databases."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        fail("PostgreSQL is not installed: run scripts/peers")
    # The server does not run as root.
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if prefix:
        shutil.chown(folder, "postgres")
    port, data = free_port(), folder / "data"

    def run(program, *arguments):
        command = [*prefix, programs[-1] / program, *arguments]
        subprocess.run([str(part) for part in command], check=True, cwd="/", stdout=subprocess.DEVNULL)

    run("initdb", "-D", data, "-A", "trust", "-U", "dcmdex", "--locale=C.UTF-8", "-E", "UTF8")
    options = {**SETTINGS, "port": port, "unix_socket_directories": folder}
    flags = " ".join(f"-c {name}={value}" for name, value in options.items())
    run("pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", flags, "start")
    try:
        yield f"postgresql://dcmdex@127.0.0.1:{port}"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")


def fresh(address, name):
    """The address of a new database."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    subprocess.run([programs[-1] / "psql", "-qX", "-c", f"CREATE DATABASE {name}", f"{address}/postgres"], check=True)
    return f"{address}/{name}"


def load(index, instances):
    """Fills an index. Returns rows a second, and bytes for each."""
    said = find_goals.run(RELEASE / "indexload", index, instances)
    found = re.search(r"([\d.]+) rows/s, ([\d.]+) bytes each", said.splitlines()[-1])
    return float(found[1]), float(found[2])


def store(address, associations, studies, seconds):
    """Has two nodes store. Returns rows a second, and what was printed of the waits."""
    more = [studies] if studies else []
    said = find_goals.run(RELEASE / "serverload", address, 2, associations, seconds, *more)
    rate, waits = re.search(r"([\d.]+) rows/s, (p50.*)", said).groups()
    counts = re.search(r"acknowledged (\d+), in the index (\d+), by the counters of studies (\d+)", said).groups()
    if len(set(counts)) != 1:
        fail(f"serverload: acknowledged, in the index and by the counters: {counts}")
    return float(rate), waits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder on the disk to measure")
    parser.add_argument("--instances", type=int, default=1_600_000)
    parser.add_argument("--seconds", type=int, default=6, help="how long nodes store, and about how long a question is asked")
    parser.add_argument("--runs", type=int, default=2)
    options = parser.parse_args()
    build("indexload", "serverload", "findload")
    options.work.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory(dir=options.work) as scratch, tempfile.TemporaryDirectory() as place, server(Path(place)) as address:
        scratch = Path(scratch)
        file, database = scratch / "index.db", fresh(address, "loaded")
        for name, index in (("index file", file), ("PostgreSQL", database)):
            rate, each = load(index, options.instances)
            rows.append((name, "first load by one writer", f"{rate:,.0f} rows/s, {each:.0f} bytes each", "100,000 rows/s, 135 bytes"))
        bench = find_goals.Bench(options.seconds)
        with (scratch / "log").open("wb") as log:
            for name, index in (("index file", file), ("PostgreSQL", database)):
                with serve(index, scratch / f"objects {name}", log, cpus=find_goals.NODE_CPU) as node:
                    bench.begin(name, file, node)
                    for what, level, keys, values_sql, count_sql in find_goals.COMMON:
                        values = bench.values(values_sql)
                        got = bench.ask(level, keys, values)
                        bench.check(what, got, values, count_sql)
                        rows.append((name, what, find_goals.last_times(got), "p50 < 1 ms"))
                    got = bench.ask("STUDY", find_goals.BY_UID, ["1.2.3"])
                    rows.append((name, "no match", find_goals.last_times(got), ""))
                    got = bench.ask("STUDY", ["StudyInstanceUID", "PatientName", "StudyDate"], [""], count=5)
                    rows.append((name, "all studies", find_goals.first_times(got), "first p50 < 5 ms"))
        for associations, studies, goal in STORES:
            into = f", all into {studies} studies" if studies else ""
            for turn in range(options.runs):
                name = f"stored_{associations}_{studies or 0}_{turn}"
                rate, waits = store(fresh(address, name), associations, studies, options.seconds)
                rows.append(("PostgreSQL", f"2 nodes x {associations}{into}", f"{rate:,.0f} rows/s, {waits}", f"{goal:,} rows/s"))
    print(f"- Machine: {machine()}; node on one processor, client on another, server on both. Commit {commit()}.\n")
    print("| index | what | measured | goal |")
    print("|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
