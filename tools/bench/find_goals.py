#!/usr/bin/env python3
"""Holds C-FIND against its goals, on indexes of several shapes, and prints one table.

    tools/bench/find_goals.py --indexes DIR [--seconds 3] [--orthanc] [--only TEXT]

DIR holds indexes that the generator `indexload` made before. `--make` makes the missing ones; the
last takes the longest. The table leaves out an index that is not there:

    26k.db     indexload 26k.db 26000              26,000 instances, 69 studies
    5k.db      indexload 5k.db 1600000             1.6 million instances, 4,211 studies
    100k.db    indexload 100k.db 1600000 8 2 3     1.6 million instances, 100,000 studies
    1m.db      indexload 1m.db 1000000 1 1 1       a million patients, a study each
    16m.db     indexload 16m.db 16000000           16 million instances, 42,106 studies
    160m.db    indexload 160m.db 160000000         160 million instances, 421,053 studies

The node runs on the first processor and the client on the second. The number of matches must be what
SQL on the views of the index says before a time counts. `--orthanc` fills Orthanc and a new index of
ours with small objects of 5,000 studies, and the same client asks both the same. Standard library
only.
"""

import argparse
import json
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path

from common import RELEASE, Listener, build, commit, fail, figures, free_port, machine, serve

NODE_CPU, CLIENT_CPU = "0", "1"
SHAPES = {
    "26k": [26_000],
    "5k": [1_600_000],
    "100k": [1_600_000, 8, 2, 3],
    "1m": [1_000_000, 1, 1, 1],
    "16m": [16_000_000],
    "160m": [160_000_000],
}

BY_UID = ["StudyInstanceUID={}", "PatientName", "StudyDate", "ModalitiesInStudy", "NumberOfStudyRelatedInstances"]
NAMED = ["PatientName={}", "StudyInstanceUID", "StudyDate"]

# name, level, keys, SQL for values that take the place of {}, SQL for the matches of one value (?1)
# or None
COMMON = [
    ("study by UID", "STUDY", BY_UID,
     "SELECT study_instance_uid FROM studies",
     "SELECT count(*) FROM studies WHERE study_instance_uid = ?1"),
    ("studies by Patient ID", "STUDY", ["PatientID={}", "StudyInstanceUID", "StudyDate", "StudyDescription"],
     "SELECT DISTINCT patient_id FROM patients",
     "SELECT count(*) FROM studies WHERE patient_id = ?1"),
    ("study by accession number", "STUDY", ["AccessionNumber={}", "StudyInstanceUID", "PatientName"],
     "SELECT accession_number FROM studies WHERE accession_number <> ''",
     "SELECT count(*) FROM studies WHERE accession_number = ?1"),
    ("series of a study", "SERIES", ["StudyInstanceUID={}", "SeriesInstanceUID", "Modality", "SeriesDescription",
      "NumberOfSeriesRelatedInstances"],
     "SELECT study_instance_uid FROM studies",
     "SELECT count(*) FROM series WHERE study_instance_uid = ?1"),
    ("studies of a day, with counts", "STUDY", ["StudyDate={}", "StudyInstanceUID", "PatientName", "ModalitiesInStudy",
      "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"],
     "SELECT DISTINCT study_date FROM studies WHERE study_date <> ''",
     "SELECT count(*) FROM studies WHERE study_date = ?1"),
]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--indexes", type=Path, required=True, help="directory of the indexes")
    parser.add_argument("--seconds", type=float, default=3, help="about how long each question is asked")
    parser.add_argument("--only", default="", help="indexes whose name contains this (orthanc is one, too)")
    parser.add_argument("--make", action="store_true", help="make the indexes that are missing")
    parser.add_argument("--orthanc", action="store_true", help="compare with Orthanc, which has to be installed")
    options = parser.parse_args()
    build("findload", *(["indexload"] if options.make else []), *(["storeload"] if options.orthanc else []))
    bench = Bench(options.seconds)
    for name, shape in SHAPES.items():
        index = options.indexes / f"{name}.db"
        if options.make and not index.exists():
            run(RELEASE / "indexload", index, *shape)
        if options.only not in name or not index.exists():
            continue
        with tempfile.TemporaryDirectory() as scratch, open(Path(scratch) / "log", "wb") as log:
            with serve(index, Path(scratch) / "objects", log, cpus=NODE_CPU) as node:
                bench.begin(name, index, node)
                ALL_OF[name](bench)
                bench.rows.append((name, "peak RSS of the node", "", f"{node.peak_rss_mb():.0f} MB", "", ""))
    if options.orthanc and options.only in "orthanc":
        compare_with_orthanc(bench)
    print(f"- Machine: {machine()}; node on one processor, client on another. Commit {commit()}.\n")
    print("| index | question | matches each | measured | goal | |")
    print("|---|---|---:|---|---|---|")
    for row in bench.rows:
        print("| " + " | ".join(row) + " |")


class Bench:
    def __init__(self, seconds):
        self.seconds, self.rows = seconds, []

    def begin(self, name, index, node):
        self.name, self.node = name, node
        self.db = sqlite3.connect(f"file:{index}?mode=ro", uri=True)

    def values(self, sql):
        # In a fixed, mixed order, so that neighbours in the index are not asked for in a row.
        return sorted((str(value) for (value,) in self.db.execute(sql)), key=lambda value: value[::-1])[:2_000]

    def ask(self, level, keys, values, count=None, associations=1, node=None, called="DCMDEX", flags=()):
        """What findload says; as often as fits the time, unless `count` is given."""
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
            file.write("\n".join(values or [""]) + "\n")
            file.flush()
            command = ["taskset", "-c", CLIENT_CPU, RELEASE / "findload", "--to", (node or self.node).address]
            command += ["--called", called, "--level", level, "--values", file.name, "--json", *flags]
            for key in keys:
                command += ["--key", key]

            def once(count):
                got = json.loads(run(*command, "--count", count, "--associations", associations))
                if got["failures"]:
                    fail(f"{keys}: {got['failures']} failures")
                return got

            if count is None:
                # What comes first is slower: statements are made, pages read.
                once(5)
                trial = once(10)
                count = max(5, min(20_000, int(self.seconds / (trial["seconds"] / 10))))
            got = once(count)
        got["asked"] = count
        return got

    def check(self, what, got, values, sql):
        counted = {}
        expected = 0
        for number in range(got["asked"]):
            value = values[number % len(values)]
            if value not in counted:
                counted[value] = self.db.execute(sql, (value,)).fetchone()[0]
            expected += counted[value]
        if expected != got["matches"]:
            fail(f"{self.name}, {what}: {got['matches']} matches, SQL says {expected}")

    def row(self, what, got, measured, goal, reached):
        each = f"{got['matches'] / got['queries']:,.1f}"
        self.rows.append((self.name, what, each, measured, goal, "reached" if reached else "**missed**"))


def last_times(got):
    return f"p50 {got['last']['p50']:.3f}, p99 {got['last']['p99']:.3f} ms"


def first_times(got):
    return f"first answer p50 {got['first']['p50']:.3f}, p99 {got['first']['p99']:.3f} ms; all of them {got['last']['p50']:,.1f} ms"


def common(bench, questions=COMMON):
    for what, level, keys, values_sql, count_sql in questions:
        values = bench.values(values_sql)
        got = bench.ask(level, keys, values)
        bench.check(what, got, values, count_sql)
        reached = got["last"]["p50"] < 0.5 and got["last"]["p99"] < 2
        bench.row(what, got, last_times(got), "p50 < 0.5, p99 < 2 ms", reached)
    ranges = ranges_of_100(bench)
    if ranges:
        got = bench.ask("STUDY", ["StudyDate={}", "ModalitiesInStudy=CT", "StudyInstanceUID", "PatientName"], list(ranges))
        expected = sum(list(ranges.values())[number % len(ranges)] for number in range(got["asked"]))
        if expected != got["matches"]:
            fail(f"{bench.name}, dates and modality: {got['matches']} matches, SQL says {expected}")
        bench.row("dates and ModalitiesInStudy", got, last_times(got), "p50 < 10 ms for 100", got["last"]["p50"] < 10)
    values = bench.values(COMMON[0][3])
    got = bench.ask("STUDY", BY_UID, values, count=4_000, associations=8)
    rate = got["queries"] / got["seconds"]
    bench.row("study by UID, 8 associations", got, f"{rate:,.0f} queries/s, {last_times(got)}", "5,000 queries/s", rate >= 5_000)


def ranges_of_100(bench):
    """Ranges of dates in which some 100 studies have a CT series, with how many."""
    days = bench.db.execute(
        "SELECT study_date, count(*) FROM studies WHERE '\\' || modalities_in_study || '\\' LIKE '%\\CT\\%' "
        "AND study_date <> '' GROUP BY 1 ORDER BY 1"
    ).fetchall()
    ranges = {}
    for at in range(0, len(days), 7):
        count, end = 0, at
        while end < len(days) and count < 100:
            count += days[end][1]
            end += 1
        if 100 <= count <= 250:
            ranges[f"{days[at][0]}-{days[end - 1][0]}"] = count
    return ranges


def small(bench):
    common(bench)


def many_studies(bench):
    common(bench)
    everything(bench)


def everything(bench):
    total = bench.db.execute("SELECT count(*) FROM studies").fetchone()[0]
    got = bench.ask("STUDY", ["StudyInstanceUID", "PatientName", "StudyDate"], [""], count=5)
    if got["matches"] != 5 * total:
        fail(f"{bench.name}: {got['matches']} matches, and there are {total} studies")
    bench.row("all studies", got, first_times(got), "p50 of the first < 5 ms", got["first"]["p50"] < 5)


def patients(bench):
    # Without the day: a million studies are spread over some 6,000 of them.
    common(bench, COMMON[:-1])
    like = "SELECT count(*) FROM studies WHERE patient_name LIKE replace(?1, '*', '%')"
    for what, values in [
        ("name `SMITH17^*`", [f"SMITH{n}^*" for n in (17, 23, 45, 88)]),
        ("name `*mith17^*`", [f"*mith{n}^*" for n in (17, 23, 45, 88)]),
        ("name `SMITH17*`", [f"SMITH{n}*" for n in (17, 23, 12, 29)]),
        ("name `*MITH17*`", [f"*MITH{n}*" for n in (17, 23, 12, 29)]),
    ]:
        got = bench.ask("STUDY", NAMED, values)
        bench.check(what, got, values, like)
        bench.row(what, got, last_times(got), "p50 < 20 ms", got["last"]["p50"] < 20)
    for what, value in [("name `SMITH*`", "SMITH*"), ("name `*MITH*`", "*MITH*"), ("name `*A*`", "*a*")]:
        got = bench.ask("STUDY", NAMED, [value], count=3)
        if value != "*a*":  # which finds Änne, too
            bench.check(what, got, [value], like)
        bench.row(what, got, first_times(got), "p50 of the first < 5 ms", got["first"]["p50"] < 5)
    everything(bench)
    for what, keys in [
        ("C-CANCEL in the midst of answers", ["StudyInstanceUID", "PatientName"]),
        ("C-CANCEL of a search that finds nothing", ["StudyDescription=*nothing*", "StudyInstanceUID"]),
    ]:
        got = bench.ask("STUDY", keys, [""], count=20, flags=["--cancel-after", "50"])
        if got["cancelled"] != 20:
            fail(f"{what}: {got['cancelled']} of 20 were cancelled")
        times = f"p50 {got['cancel']['p50']:.1f}, max {got['cancel']['max']:.1f} ms"
        bench.row(what, got, times, "< 100 ms", got["cancel"]["max"] < 100)


ALL_OF = {"26k": small, "5k": small, "100k": many_studies, "1m": patients, "16m": small, "160m": small}


def compare_with_orthanc(bench, studies=5_000):
    """The same objects in both, one for each study, sent by the same sender."""
    orthanc = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    if not Path(orthanc).exists():
        fail("Orthanc is not installed")
    with tempfile.TemporaryDirectory() as scratch, open(Path(scratch) / "log", "wb") as log:
        scratch = Path(scratch)
        port = free_port()
        settings = {
            "StorageDirectory": str(scratch / "orthanc"), "IndexDirectory": str(scratch / "orthanc"), "Plugins": [],
            "HttpServerEnabled": False, "DicomPort": port, "DicomAet": "ORTHANC", "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True, "UnknownSopClassAccepted": True, "LimitFindResults": 0, "LimitFindInstances": 0,
        }  # fmt: skip
        (scratch / "orthanc.json").write_text(json.dumps(settings))
        theirs = Listener([orthanc, scratch / "orthanc.json"], port, log, NODE_CPU)
        ours = serve(scratch / "index.db", scratch / "objects", log, cpus=NODE_CPU)
        with theirs, ours:
            for node, called in [(theirs, "ORTHANC"), (ours, "DCMDEX")]:
                command = [RELEASE / "storeload", "--to", node.address, "--called", called]
                # Orthanc answers in two pieces: without --quick-ack, 40 ms for each object.
                said = run(*command, "--count", studies, "--associations", 8, "--series", 1, "--size", 5_000, "--quick-ack", "--json")
                figures(said, studies)
            bench.begin("both", scratch / "index.db", ours)
            for what, level, keys, values_sql, count_sql in COMMON:
                values = bench.values(values_sql)
                counts = {}
                for node, called in [(ours, "DCMDEX"), (theirs, "ORTHANC")]:
                    count = 200 if node is theirs else 2_000
                    # As above: what is compared is the search.
                    flags = ["--quick-ack"]
                    got = bench.ask(level, keys, values, count=count, node=node, called=called, flags=flags)
                    bench.check(f"{what} ({called})", got, values, count_sql)
                    counts[called] = got
                ratio = counts["ORTHANC"]["last"]["p50"] / counts["DCMDEX"]["last"]["p50"]
                measured = f"Orthanc {last_times(counts['ORTHANC'])}; dcmdex {last_times(counts['DCMDEX'])}: {ratio:.0f}x"
                bench.row(what, counts["DCMDEX"], measured, "20x", ratio >= 20)


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fail(f"{Path(command[0]).name}: {done.stderr.strip()[-500:]}")
    return done.stdout


if __name__ == "__main__":
    main()
