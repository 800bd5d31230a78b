#!/usr/bin/env python3
"""Times the modality worklist of a node: C-FIND over many items, and an order until it is found.

    tools/bench/worklist.py [--items 10000 1000000] [--count 500] [--orders 100] [--binary PROGRAM]

The items lie on the next 30 days, or 365 if there are many, at 40 stations of eight modalities. A question has a date, a
modality and a station, as that of a device. The number of answers must be what SQL on the index says.
An order goes over MLLP on an open connection, and is then asked for by its accession number on an open
association. Standard library only.
"""

import argparse
import datetime
import json
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from common import RELEASE, Listener, build, commit, free_port, machine
from dimse import Sender, key, sequence

WORKLIST = b"1.2.840.10008.5.1.4.31"
MODALITIES = ["CT", "MR", "US", "CR", "DX", "MG", "NM", "XA"]
STATIONS = 40
# Days that the items lie on. A big site has a million in a year.
MONTH, YEAR = 30, 365
MANY = 100_000
# Items of one file. The program reads up to a megabyte.
OF_FILE = 1_000


def days(items):
    return YEAR if items >= MANY else MONTH


def place(number, of_days):
    """Date, modality and station of an item. Each station has its items on each day."""
    date = datetime.date.today() + datetime.timedelta(days=1 + number % of_days)
    station = number // of_days % STATIONS
    return date.strftime("%Y%m%d"), MODALITIES[station % len(MODALITIES)], f"STATION{station}"


def item(number, of_days):
    date, modality, station = place(number, of_days)
    return {
        "PatientName": f"Family{number % 5000}^Given{number % 700}",
        "PatientID": f"P{number % 300000}",
        "PatientBirthDate": "19700131",
        "PatientSex": "F",
        "AccessionNumber": f"A{number}",
        "StudyInstanceUID": f"1.2.840.99.{number}",
        "RequestedProcedureID": f"R{number}",
        "RequestedProcedureDescription": "Thorax with contrast",
        "ReferringPhysicianName": "Referrer^Rita",
        "ScheduledProcedureStepSequence": [
            {
                "Modality": modality,
                "ScheduledStationAETitle": station,
                "ScheduledProcedureStepStartDate": date,
                "ScheduledProcedureStepStartTime": f"{8 + number % 10:02}{number % 60:02}",
                "ScheduledPerformingPhysicianName": f"Doctor{number % 50}^Dora",
                "ScheduledProcedureStepDescription": "Thorax",
                "ScheduledProcedureStepID": f"S{number}",
            }
        ],
    }


def fill(binary, home, items):
    files = home / "files"
    files.mkdir()
    for first in range(0, items, OF_FILE):
        numbers = range(first, min(first + OF_FILE, items))
        (files / f"{first:08}.json").write_text(json.dumps([item(number, days(items)) for number in numbers]))
    command = [binary, "worklist", "add", "--index", home / "index.db", *sorted(files.iterdir())]
    subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def question(date, modality, station):
    step = key(0x0008, 0x0060, b"CS", modality.encode()) + key(0x0040, 0x0001, b"AE", station.encode())
    step += key(0x0040, 0x0002, b"DA", date.encode()) + key(0x0040, 0x0003, b"TM") + key(0x0040, 0x0006, b"PN")
    step += key(0x0040, 0x0007, b"LO") + key(0x0040, 0x0009, b"SH")
    root = key(0x0008, 0x0050, b"SH") + key(0x0010, 0x0010, b"PN") + key(0x0010, 0x0020, b"LO")
    root += key(0x0010, 0x0030, b"DA") + key(0x0010, 0x0040, b"CS") + key(0x0020, 0x000D, b"UI")
    return root + key(0x0032, 0x1060, b"LO") + sequence(0x0040, 0x0100, step) + key(0x0040, 0x1001, b"SH")


def by_accession(number):
    step = sequence(0x0040, 0x0100, key(0x0008, 0x0060, b"CS"))
    return key(0x0008, 0x0050, b"SH", number.encode()) + step


def ask(node, index, count, of_days):
    """Times of questions in milliseconds, and the answers of each."""
    peer = Sender(node.port, b"DCMDEX", WORKLIST)
    times, answers = [], []
    # The state leads SQLite to the index.
    sql = "SELECT count(*) FROM worklist_item WHERE state <= 1 AND start_date = ? AND modality = ? AND station_ae_title = ?"
    for number in range(count):
        # In a mixed order, so that neighbours in the index are not asked for in a row.
        asked = place(number * 7919, of_days)
        identifier = question(*asked)
        begun = time.perf_counter()
        found = peer.find(number % 65535 + 1, identifier)
        times.append((time.perf_counter() - begun) * 1000)
        answers.append(found)
        (expected,) = index.execute(sql, asked).fetchone()
        if found != expected:
            raise SystemExit(f"error: {asked}: {found} answers, SQL says {expected}")
    peer.close()
    return times, answers


def order(number):
    return (
        f"MSH|^~\\&|RIS|SITE|||20261129100000||ORM^O01|{number}|P|2.3.1\rPID|||N{number}||Doe^Jane\r"
        f"ORC|NW|N{number}\rOBR|1|||X^Head||||||||||||||N{number}||||||CT\r"
    )


def orders(node, hl7, count):
    """Times from the order to its acknowledgment, and to its item, in milliseconds."""
    peer = Sender(node.port, b"DCMDEX", WORKLIST)
    stream = socket.create_connection(("127.0.0.1", hl7))
    acknowledged, visible = [], []
    for number in range(count):
        begun = time.perf_counter()
        stream.sendall(b"\x0b" + order(number).encode() + b"\x1c\r")
        answer = b""
        while not answer.endswith(b"\x1c\r"):
            answer += stream.recv(4096)
        acknowledged.append((time.perf_counter() - begun) * 1000)
        if b"MSA|AA" not in answer or peer.find(number + 1, by_accession(f"N{number}")) != 1:
            raise SystemExit(f"error: order {number} is not in the worklist: {answer}")
        visible.append((time.perf_counter() - begun) * 1000)
    stream.close()
    peer.close()
    return acknowledged, visible


def row(name, times, more=""):
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    print(f"| {name} | {len(times)} | {statistics.median(times):.2f} | {p99:.2f} | {ordered[-1]:.2f} | {more} |", flush=True)


def measure(binary, home, log, items, options, note):
    """Asks a node that has the items, and sends it orders."""
    port, hl7 = free_port(), free_port()
    settings = home / "dcmdex.toml"
    settings.write_text(f'[worklist]\nenabled = true\nhl7 = "127.0.0.1:{hl7}"\n')
    command = [binary, "serve", "--config", settings, "--index", home / "index.db", "--storage", home / "objects"]
    index = sqlite3.connect(f"file:{home / 'index.db'}?mode=ro", uri=True)
    with Listener([*command, "--port", port], port, log) as node:
        before = node.cpu_seconds()
        times, answers = ask(node, index, options.count, days(items))
        cpu = (node.cpu_seconds() - before) * 1000 / options.count
        note = f"{statistics.mean(answers):.0f} answers each; node {cpu:.2f} ms of processor time each; {note}"
        row(f"C-FIND by date, modality and station, {items:,} items", times, note)
        acknowledged, visible = orders(node, hl7, options.orders)
        row(f"order to acknowledgment, {items:,} items", acknowledged)
        row(f"order to item found, {items:,} items", visible, f"node {node.peak_rss_mb():.0f} MB")
    index.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--count", type=int, default=500, help="questions")
    parser.add_argument("--orders", type=int, default=100)
    parser.add_argument("--binary", type=Path, help="a dcmdex that was built before")
    options = parser.parse_args()
    if not options.binary:
        build()
    binary = options.binary or RELEASE / "dcmdex"
    print(f"- Machine: {machine()}; client and node on the same cores. Commit {commit()}.\n")
    print("| what | times | p50, ms | p99, ms | slowest, ms | |")
    print("|---|---:|---:|---:|---:|---|")
    for items in options.items:
        with tempfile.TemporaryDirectory() as home, open(Path(home) / "log", "wb") as log:
            home = Path(home)
            begun = time.perf_counter()
            fill(binary, home, items)
            took = time.perf_counter() - begun
            measure(binary, home, log, items, options, f"filled in {took:.0f} s")


if __name__ == "__main__":
    main()
