#!/usr/bin/env python3
"""Times C-FIND over the network on an index, and prints a table.

    tools/bench/find.py --index FILE [--count 1000] [--only TEXT]
        [--peer orthanc=ORTHANC@127.0.0.1:4242]...

Each question is asked many times with values taken from the index, over one open association. The
first question is also asked over eight. The number of matches must be what SQL on the views of the
index says before a time counts. Peers are other nodes that hold the same instances. The same client
asks them the same questions, in turn with ours. Standard library only; the client is the generator
`findload`. The generator `indexload` makes indexes to ask:

    indexload INDEX 1600000                1.6 million instances, 4,210 studies
    indexload INDEX 1600000 8 2 3          1.6 million instances, 100,000 studies
    indexload INDEX 1000000 1 1 1          a million patients and studies
"""

import argparse
import json
import sqlite3
import subprocess
import tempfile
from pathlib import Path

from common import RELEASE, build, commit, fail, machine, serve

# (The corpus has no day after the 28th.) A row has a name, a level and keys, then SQL for the
# values that take the place of {}. The last part is SQL for the number of matches of one value
# (?1).
QUESTIONS = [
    ("one study by UID", "STUDY", ["StudyInstanceUID={}", "PatientName", "StudyDate", "ModalitiesInStudy",
      "NumberOfStudyRelatedInstances"],
     "SELECT study_instance_uid FROM studies",
     "SELECT count(*) FROM studies WHERE study_instance_uid = ?1"),
    ("studies of a patient by ID", "STUDY", ["PatientID={}", "StudyInstanceUID", "StudyDate", "StudyDescription"],
     "SELECT DISTINCT patient_id FROM studies",
     "SELECT count(*) FROM studies WHERE patient_id = ?1"),
    ("study by accession number", "STUDY", ["AccessionNumber={}", "StudyInstanceUID", "PatientName"],
     "SELECT accession_number FROM studies WHERE accession_number <> ''",
     "SELECT count(*) FROM studies WHERE accession_number = ?1"),
    ("studies of a day, with counts", "STUDY", ["StudyDate={}", "StudyInstanceUID", "PatientName", "ModalitiesInStudy",
      "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"],
     "SELECT DISTINCT study_date FROM studies WHERE study_date <> ''",
     "SELECT count(*) FROM studies WHERE study_date = ?1"),
    ("studies of a month with CT", "STUDY", ["StudyDate={}01-{}28", "ModalitiesInStudy=CT", "StudyInstanceUID", "PatientName"],
     "SELECT DISTINCT substr(study_date, 1, 6) FROM studies WHERE study_date <> ''",
     "SELECT count(*) FROM studies WHERE substr(study_date, 1, 6) = ?1 AND '\\' || modalities_in_study || '\\' LIKE '%\\CT\\%'"),
    ("series of a study", "SERIES", ["StudyInstanceUID={}", "SeriesInstanceUID", "Modality", "SeriesDescription",
      "NumberOfSeriesRelatedInstances"],
     "SELECT study_instance_uid FROM studies",
     "SELECT count(*) FROM series WHERE study_instance_uid = ?1"),
    ("images of a series", "IMAGE", ["SeriesInstanceUID={}", "SOPInstanceUID", "InstanceNumber"],
     "SELECT series_instance_uid FROM series",
     "SELECT count(*) FROM instances WHERE series_instance_uid = ?1"),
    ("name by its beginning", "STUDY", ["PatientName={}*", "StudyInstanceUID"],
     "SELECT DISTINCT substr(patient_name, 1, instr(patient_name, '^') + 3) FROM studies WHERE patient_name GLOB '[A-Z]*^[A-Z]*'",
     None),
    ("name by its middle", "STUDY", ["PatientName=*{}*", "StudyInstanceUID"],
     "SELECT DISTINCT substr(patient_name, 2, 6) FROM studies WHERE patient_name GLOB '[A-Z][a-z][a-z][a-z][a-z][a-z][a-z]*'",
     None),
    ("all studies", "STUDY", ["StudyInstanceUID", "PatientName", "StudyDate"],
     "SELECT ''",
     "SELECT count(*) FROM studies"),
]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1_000, help="queries of each kind; fewer where answers are long")
    parser.add_argument("--only", default="", help="questions whose name contains this")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=AET@HOST:PORT", help="another node to ask as well")
    parser.add_argument("--peer-count", type=int, default=50, help="queries of each kind to a peer")
    options = parser.parse_args()
    peers = [(name, *address.split("@", 1)) for name, address in (peer.split("=", 1) for peer in options.peer)]
    build("findload")
    db = sqlite3.connect(f"file:{options.index}?mode=ro", uri=True)
    instances = db.execute("SELECT coalesce(sum(instance_count), 0) FROM study").fetchone()[0]
    studies = db.execute("SELECT count(*) FROM studies").fetchone()[0]
    rows = []
    with tempfile.TemporaryDirectory() as scratch, open(Path(scratch) / "log", "wb") as log:
        with serve(options.index, Path(scratch) / "objects", log) as node:
            base = node.rss_mb()
            for question in QUESTIONS:
                if options.only not in question[0]:
                    continue
                for associations in [1, 8] if question is QUESTIONS[0] else [1]:
                    got = ask(options, db, "DCMDEX", node.address, scratch, question, associations, options.count)
                    rows.append((question[0], "dcmdex", associations, got))
                    for name, called, address in peers:
                        theirs = ask(options, db, called, address, scratch, question, associations, options.peer_count)
                        rows.append((question[0], name, associations, {**theirs, "ours": got["p50"]}))
            rss = node.peak_rss_mb()
    print(f"- Machine: {machine()}; client and node on the same cores.")
    print(f"- Index: {instances:,} instances, {studies:,} studies. Commit {commit()}. Node: {base:.0f} MB RSS before the first query, peak {rss:.0f} MB.\n")
    print("| question | node | associations | queries | matches each | queries/s | first response p50, ms | last response p50, ms | p99, ms | dcmdex is |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, node, associations, got in rows:
        each = got["matches"] / got["queries"]
        ratio = f"{got['p50'] / got['ours']:.0f}x" if "ours" in got else ""
        print(
            f"| {name} | {node} | {associations} | {got['queries']:.0f} | {each:.1f} | {got['rate']:,.0f} | {got['first']:.3f} "
            f"| {got['p50']:.3f} | {got['p99']:.3f} | {ratio} |"
        )


def ask(options, db, called, address, scratch, question, associations, count):
    name, level, keys, values_sql, matches_sql = question
    # In a fixed, mixed order, so that neighbours in the index are not asked for in a row.
    values = sorted((value for (value,) in db.execute(values_sql)), key=lambda value: str(value)[::-1])[:2_000]
    if not values:
        fail(f"{name}: the index has no values to ask for")
    count = count if len(values) > 1 else max(5, count // 100)
    file = Path(scratch) / "values"
    file.write_text("\n".join(values) + "\n", encoding="utf-8")
    command = [RELEASE / "findload", "--to", address, "--called", called, "--level", level, "--values", file]
    command += ["--count", count, "--associations", associations, "--json"]
    for key in keys:
        command += ["--key", key]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fail(f"{name}: {done.stderr.strip()[-500:]}")
    found = json.loads(done.stdout)
    got = {**found, **found["last"], "first": found["first"]["p50"], "rate": found["queries"] / found["seconds"]}
    if got["failures"]:
        fail(f"{name}: {got['failures']:.0f} failures")
    if matches_sql and associations == 1:
        asked = [values[number % len(values)] for number in range(count)]
        parameters = (lambda value: (value,)) if "?1" in matches_sql else (lambda _: ())
        known = {value: db.execute(matches_sql, parameters(value)).fetchone()[0] for value in set(asked)}
        expected = sum(known[value] for value in asked)
        if expected != got["matches"]:
            fail(f"{name}: {got['matches']:.0f} matches, SQL on the views says {expected}")
    return got


if __name__ == "__main__":
    main()
