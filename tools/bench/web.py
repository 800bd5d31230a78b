#!/usr/bin/env python3
"""Times DICOMweb of dcmdex beside Orthanc's plugin and beside nginx with the same bytes, and prints a table.

    tools/bench/web.py --work DIR [--runs 3] [--index FILE] [--built]

All three have the same objects: a series of --slices slices with 0.5 MB of pixels, and a series of 500
and one of 1,000 instances with headers of 115 elements. First the results are compared: searches,
metadata, frames and the pixels of a whole series. nginx serves what dcmdex answered, as files. Then the
runs are taken, interleaved. `--index` asks the searches of a large index, made by `indexload`.
`--built` takes what lies in target/release.

h2load (nghttp2-client) gives the load of many requests, `findload` and `storeload` that of DIMSE. Peers
that are not installed are left out: orthanc-dicomweb and nginx of Debian. Standard library only.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from common import RELEASE, Listener, build, commit, fail, figures, free_port, machine, serve
from http_client import Http
from retrieve import CLASS, ct_slice, element

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
JSON = [("Accept", "application/dicom+json")]
SERIES_ACCEPT = [("Accept", 'multipart/related; type="application/dicom"; transfer-syntax=*')]
FRAME_ACCEPT = 'multipart/related; type="application/octet-stream"'
ROOT = "1.2.826.0.1.3680043.9.7777"
PIXELS, FRAMES_ASKED, SLOW, CLIENTS = 512 * 1024, 3_000, 200, 100


def instance(study, number, filling, pixels):
    """A CT instance of 115 elements and some 5 KB, and its pixels."""
    uid, us = f"{study}.1.{number}", lambda value: struct.pack("<H", value)
    meta = element(2, 1, "OB", b"\0\1") + element(2, 2, "UI", CLASS) + element(2, 3, "UI", uid)
    meta += element(2, 0x10, "UI", "1.2.840.10008.1.2.1") + element(2, 0x12, "UI", "1.2.3")
    data = [
        element(8, 0x16, "UI", CLASS), element(8, 0x18, "UI", uid), element(8, 0x20, "DA", "20240102"),
        element(8, 0x30, "TM", "101112"), element(8, 0x50, "SH", study[-9:]), element(8, 0x60, "CS", "CT"),
        element(8, 0x90, "PN", "Referring^Doctor"), element(8, 0x1030, "LO", "CT THORAX"),
        *(element(9, 0x10, "LO", "BENCH"), *(element(9, 0x1000 + at, "LO", f"private value {at:030}") for at in range(filling))),
        element(0x10, 0x10, "PN", f"Bench^{study[-4:]}"), element(0x10, 0x20, "LO", f"BENCH{study[-4:]}"),
        element(0x10, 0x30, "DA", "19600101"), element(0x10, 0x40, "CS", "O"),
        element(0x18, 0x50, "DS", "1.25"), element(0x18, 0x60, "DS", "120"), element(0x20, 0xD, "UI", study),
        element(0x20, 0xE, "UI", f"{study}.1"), element(0x20, 0x10, "SH", "1"), element(0x20, 0x11, "IS", "1"),
        element(0x20, 0x13, "IS", str(number)), element(0x20, 0x32, "DS", f"-250\\-250\\{number}"),
        element(0x20, 0x37, "DS", "1\\0\\0\\0\\1\\0"), element(0x28, 2, "US", us(1)), element(0x28, 4, "CS", "MONOCHROME2"),
        element(0x28, 0x10, "US", us(16)), element(0x28, 0x11, "US", us(16)), element(0x28, 0x30, "DS", "0.7\\0.7"),
        element(0x28, 0x100, "US", us(16)), element(0x28, 0x101, "US", us(16)), element(0x28, 0x102, "US", us(15)),
        element(0x28, 0x103, "US", us(0)), element(0x7FE0, 0x10, "OW", os.urandom(pixels)),
    ]  # fmt: skip
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta)) + meta + b"".join(data)


class Data:
    """The folder that all of them serve."""

    def __init__(self, folder, slices):
        self.folder, self.slices = folder, slices
        self.large = f"/studies/{ROOT}.1/series/{ROOT}.1.1"
        self.of_500, self.of_1000 = (f"/studies/{ROOT}.{n}/series/{ROOT}.{n}.1" for n in (2, 3))
        self.frames = [f"{self.large}/instances/{ROOT}.1.1.{number}/frames/1" for number in range(1, slices + 1)]
        folder.mkdir()
        for number in range(1, slices + 1):
            (folder / f"large{number:05}.dcm").write_bytes(ct_slice(number, PIXELS))
        for study, count in ((2, 500), (3, 1_000)):
            for number in range(1, count + 1):
                file = folder / f"small{study}_{number:05}.dcm"
                file.write_bytes(instance(f"{ROOT}.{study}", number, 80, 512))
        # Studies to search among.
        for study in range(1_000, 1_300):
            (folder / f"study{study}.dcm").write_bytes(instance(f"{ROOT}.{study}", 1, 0, 512))


class Dcmdex:
    name, called = "dcmdex", "DCMDEX"

    def __init__(self, folder, log, index=None):
        self.index = index or folder / "index.db"
        self.folder, self.log = folder, log

    def start(self, data=None):
        if data:
            subprocess.run([RELEASE / "dcmdex", "scan", "--index", self.index, data.folder], check=True, stdout=self.log, stderr=self.log)
        self.http = free_port()
        self.base = f"http://127.0.0.1:{self.http}/dicom-web"
        config = self.folder / "dcmdex.toml"
        # The slow peers come from addresses of their own, the others from one.
        config.write_text("[http]\nmax_connections = 2000\nmax_connections_per_address = 1000\n")
        node = serve(self.index, self.folder / "objects", self.log, "--config", config, "--http-port", self.http)
        while node.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.http)) == 0:
                    return node
            time.sleep(0.02)
        fail(f"dcmdex ended with {node.process.returncode}, see {self.log.name}")


class Orthanc:
    name, called = "Orthanc", "ORTHANC"

    def __init__(self, folder, log):
        self.folder, self.log = folder, log

    def start(self, data=None):
        self.http, port = free_port(), free_port()
        self.base = f"http://127.0.0.1:{self.http}/dicom-web"
        settings = {
            "DicomAet": "ORTHANC", "DicomPort": port, "HttpPort": self.http, "AuthenticationEnabled": False,
            "RemoteAccessAllowed": False, "KeepAlive": True, "StorageDirectory": str(self.folder / "orthanc"),
            "IndexDirectory": str(self.folder / "orthanc"), "Plugins": [str(PLUGIN)], "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True, "DicomCheckCalledAet": False, "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }  # fmt: skip
        (self.folder / "orthanc.json").write_text(json.dumps(settings))
        node = Listener(["/usr/sbin/Orthanc", self.folder / "orthanc.json"], self.http, self.log)
        for file in sorted(data.folder.iterdir()) if data else ():
            urllib.request.urlopen(f"http://127.0.0.1:{self.http}/instances", data=file.read_bytes()).read()
        return node


class Nginx:
    """The answers of dcmdex as files."""

    name = "nginx"

    def __init__(self, folder, log):
        self.folder, self.log = folder, log
        (folder / "files").mkdir()

    def put(self, path, body):
        (self.folder / "files" / path).write_bytes(body)

    def start(self, _=None):
        self.http = free_port()
        # Its workers give up their rights, and the folder is ours alone.
        user = "user root;" if os.geteuid() == 0 else ""
        (self.folder / "nginx.conf").write_text(
            f"daemon off; {user} worker_processes 2; pid {self.folder}/nginx.pid; error_log {self.folder}/nginx.log;\n"
            "events { worker_connections 1024; }\nhttp { access_log off; sendfile on; tcp_nopush on;\n"
            + "".join(f"{kind}_temp_path {self.folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            + f"keepalive_requests 10000000; server {{ listen 127.0.0.1:{self.http}; root {self.folder}/files; }}\n"
            f"server {{ listen 127.0.0.1:{self.http + 1} http2; root {self.folder}/files; }} }}\n"
        )
        return Listener(["/usr/sbin/nginx", "-p", self.folder, "-c", self.folder / "nginx.conf"], self.http, self.log)


def checked(status, expected, what):
    if status != expected:
        fail(f"{what}: status {status}")


def answer(node, path, headers=JSON):
    http = Http(node.http)
    status, known, body = http.get(f"/dicom-web{path}", headers)
    http.close()
    checked(status, 200, f"{node.name} {path}")
    return known, body


def parts(headers, body):
    """The bodies of the parts of a multipart response."""
    boundary = re.search(r'boundary="?([^";]+)', headers["content-type"])[1].encode()
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary)[1:-1]
    return [piece.split(b"\r\n\r\n", 1)[1] for piece in pieces]


def compare(ours, theirs, data):
    """Ends the run where the two nodes answer differently."""
    def uids(node, path, tag):
        return sorted(entity[tag]["Value"][0] for entity in json.loads(answer(node, path)[1]))

    def picture(node, path):
        return hashlib.sha256(parts(*answer(node, path, [("Accept", FRAME_ACCEPT)]))[0]).hexdigest()

    def pixels(node):
        objects = parts(*answer(node, data.large, SERIES_ACCEPT))
        return sorted(hashlib.sha256(each[-PIXELS:]).hexdigest() for each in objects)

    for path, tag in (("/studies", "0020000D"), (f"{data.of_500}/instances", "00080018")):
        if uids(ours, path, tag) != uids(theirs, path, tag):
            fail(f"{path}: {theirs.name} finds others than dcmdex")
    for path, count in ((data.of_500, 500), (data.of_1000, 1_000)):
        both = [{each["00080018"]["Value"][0]: each for each in json.loads(answer(node, f"{path}/metadata")[1])} for node in (ours, theirs)]
        if len(both[0]) != count or both[0].keys() != both[1].keys():
            fail(f"{path}/metadata: {theirs.name} has other instances than dcmdex")
        for tag in ("00100010", "00200032", "00280010"):
            if any(both[0][uid][tag].get("Value") != both[1][uid][tag].get("Value") for uid in both[0]):
                fail(f"{path}/metadata: {theirs.name} has another {tag} than dcmdex")
    if picture(ours, data.frames[0]) != picture(theirs, data.frames[0]) or pixels(ours) != pixels(theirs):
        fail(f"pixels: {theirs.name} has others than dcmdex")


def times_ms(node, targets, headers=JSON, status=200):
    """Milliseconds to the last byte of each target, over one connection."""
    http, took = Http(node.http), []
    for target in targets:
        begun = time.perf_counter()
        got, _ = http.drain(target, headers)
        took.append((time.perf_counter() - begun) * 1_000)
        checked(got, status, f"{node.name} {target}")
    http.close()
    return took


def p50(values):
    return statistics.median(values)


def h2load(port, targets, count, *flags, headers=()):
    """Requests and bytes for each second."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"http://127.0.0.1:{port}{target}\n" for target in targets))
        file.flush()
        command = ["h2load", "-n", str(count), *flags, "-i", file.name]
        for name, value in headers:
            command += ["-H", f"{name}: {value}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if f"{count} 2xx" not in done:
        fail(f"h2load: {done[-600:]}")
    seconds = float(re.search(r"finished in ([\d.]+)(ms|s|us)", done)[1]) * {"s": 1, "ms": 1e-3, "us": 1e-6}[re.search(r"finished in [\d.]+(ms|s|us)", done)[1]]
    return count / seconds, int(re.search(r"\((\d+)\) data", done)[1]) / seconds


def finding(index, node, listener, level, keys, values):
    """p50 of C-FIND, in milliseconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(values) + "\n")
        file.flush()
        port = listener.port if isinstance(node, Dcmdex) else node.dicom
        command = [RELEASE / "findload", "--to", f"127.0.0.1:{port}", "--called", node.called, "--level", level]
        command += ["--values", file.name, "--count", "500", "--json", *(part for key in keys for part in ("--key", key))]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["last"]["p50"]


def searches(index):
    """Name, target with {}, level and keys of the same C-FIND, values."""
    db = sqlite3.connect(f"file:{index}?mode=ro", uri=True)
    column = lambda sql: sorted((value for (value,) in db.execute(sql)), key=lambda value: value[::-1])[:500]
    studies = column("SELECT study_instance_uid FROM studies LIMIT 5000")
    patients = column("SELECT DISTINCT patient_id FROM studies LIMIT 5000")
    return [
        ("one study by UID", "/dicom-web/studies?StudyInstanceUID={}", "STUDY",
         ["StudyInstanceUID={}", "StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy", "ReferringPhysicianName",
          "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "NumberOfStudyRelatedSeries",
          "NumberOfStudyRelatedInstances"], studies),
        ("studies of a patient", "/dicom-web/studies?PatientID={}", "STUDY",
         ["PatientID={}", "StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy",
          "ReferringPhysicianName", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "NumberOfStudyRelatedSeries",
          "NumberOfStudyRelatedInstances"], patients),
        ("series of a study", "/dicom-web/studies/{}/series", "SERIES",
         ["StudyInstanceUID={}", "SeriesInstanceUID", "Modality", "SeriesDescription", "SeriesNumber",
          "NumberOfSeriesRelatedInstances"], studies),
    ]  # fmt: skip


def stow_body(objects, boundary="bench"):
    pieces = [f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + each + b"\r\n" for each in objects]
    return b"".join([*pieces, f"--{boundary}--\r\n".encode()])


STOW = [("Content-Type", 'multipart/related; type="application/dicom"; boundary=bench'), *JSON]


def reset_peak(listener):
    """Lets the peak begin anew (proc(5), clear_refs), and returns what the node has now in MB."""
    Path(f"/proc/{listener.process.pid}/clear_refs").write_text("5")
    return listener.rss_mb()


def stow_growth(node, listener):
    """MB that the node grows by while an object of 200 MiB is stored."""
    body, http = stow_body([instance(f"{ROOT}.9001", 1, 0, 200 << 20)]), Http(node.http)
    before = reset_peak(listener)
    status, _, said = http.get("/dicom-web/studies", STOW, "POST", body)
    if status != 200 or b"00081199" not in said:
        fail(f"{node.name}: 200 MiB were not stored: {status} {said[:200]}")
    return listener.peak_rss_mb() - before


def stow_rate(node, run, connections=16, requests=10, objects=25):
    """Objects of 5 KB a second, in requests of 25, over 16 connections."""
    bodies = [
        [stow_body([instance(f"{ROOT}.7.{run}.{at}.{number}", each, 70, 512) for each in range(objects)]) for number in range(requests)]
        for at in range(connections)
    ]
    failed = []

    def send(mine):
        http = Http(node.http)
        for body in mine:
            status, _, said = http.get("/dicom-web/studies", STOW, "POST", body)
            if status != 200:
                failed.append((status, said[:200]))

    threads = [threading.Thread(target=send, args=(mine,)) for mine in bodies]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        fail(f"{node.name}: {failed[0]}")
    return connections * requests * objects / (time.perf_counter() - begun)


def store_rate(listener, called, count=4_000):
    """Objects of 5 KB a second by C-STORE, over 16 associations."""
    command = [RELEASE / "storeload", "--to", listener.address, "--called", called, "--associations", 16, "--count", count, "--size", 512, "--json"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
    return figures(done, count)["rate"]


def hundred_clients(node, listener, data):
    """MB over what the node had, while 100 clients search, and take metadata, frames and a series."""
    before, failed = reset_peak(listener), []

    def work(number):
        http = Http(node.http, f"127.0.{1 + number % 10}.1")
        try:
            for path, headers in (
                ("/studies?limit=101", JSON),
                (f"{data.of_1000}/metadata", JSON),
                (data.frames[number % data.slices], [("Accept", FRAME_ACCEPT)]),
                (data.of_500, SERIES_ACCEPT),
            ):
                status, _ = http.drain(f"/dicom-web{path}", headers)
                if status != 200:
                    failed.append(f"{path}: {status}")
        except OSError as error:
            failed.append(str(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        return None
    return listener.peak_rss_mb() - before


def beside_slow(node, data):
    """p50 and the slowest of searches beside 200 slow heads, 200 slow uploads and 200 that read nothing."""
    upload = b'POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/dicom\r\nContent-Length: 1000000\r\n\r\n' + b"\0" * 1_000
    never = f"GET /dicom-web{data.large} HTTP/1.1\r\nHost: localhost\r\nAccept: {SERIES_ACCEPT[0][1]}\r\n\r\n".encode()
    held = []
    for kind, request in enumerate((b"GET /dicom-web/studies HTTP/1.1\r\nHost: loc", upload, never)):
        for number in range(SLOW):
            slow = socket.socket()
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            slow.bind((f"127.1.{kind}.{number % 10 + 1}", 0))
            slow.settimeout(1)
            held.append(slow)
            try:
                slow.connect(("127.0.0.1", node.http))
                slow.sendall(request)
            except OSError:
                # The node takes no more: the others of this kind would only wait.
                break
    took = []
    try:
        http = Http(node.http)
        http.socket.settimeout(10)
        for _ in range(200):
            begun = time.perf_counter()
            status, _ = http.drain("/dicom-web/studies?limit=1", JSON)
            checked(status, 200, node.name)
            took.append((time.perf_counter() - begun) * 1_000)
    except OSError:
        return None
    finally:
        for slow in held:
            slow.close()
    return p50(took), max(took)


class Table:
    """What was measured, in the order in which it was first."""

    def __init__(self):
        self.rows = {}

    def add(self, what, who, value):
        self.rows.setdefault(what, {}).setdefault(who, []).append(value)
        print(f"{what}, {who}: {value}", file=sys.stderr, flush=True)

    def median(self, what, who):
        values = [value for value in self.rows.get(what, {}).get(who, []) if value is not None]
        return statistics.median(values) if values else None


def run(options, data, ours, node, theirs, peer, nginx, table, number, found):
    for who, process in ((ours, node), (theirs, peer)):
        if who and number == 0:
            table.add("200 MiB stored, growth, MB", who.name, stow_growth(who, process))
    for name, target, level, keys, values in found:
        targets = [target.replace("{}", value) for value in values]
        table.add(f"search: {name}, p50, ms", "dcmdex", p50(times_ms(ours, targets)))
        table.add(f"search: {name}, p50, ms", "C-FIND", finding(ours.index, ours, node, level, keys, values))
        if theirs:
            table.add(f"search: {name}, p50, ms", "Orthanc", p50(times_ms(theirs, targets[:100])))
    for who in filter(None, (ours, theirs)):
        table.add("search: limit=101, p50, ms", who.name, p50(times_ms(who, ["/dicom-web/studies?limit=101"] * 20)))
        for path, count in ((data.of_500, 500), (data.of_1000, 1_000)):
            targets = [f"/dicom-web{path}/metadata"] * (5 if who is ours else 1)
            took = times_ms(who, targets)
            table.add(f"metadata of {count:,} instances, first time, ms", who.name, took[0])
            table.add(f"metadata of {count:,} instances, p50, ms", who.name, p50(took[1:] or took))
    etag = answer(ours, f"{data.of_1000}/metadata")[0]["etag"]
    conditional = [*JSON, ("If-None-Match", etag)]
    table.add("304 of 1,000 instances, p50, ms", "dcmdex", p50(times_ms(ours, [f"/dicom-web{data.of_1000}/metadata"] * 50, conditional, 304)))
    octets = [("accept", "application/octet-stream")]
    frames = [f"/dicom-web{path}" for path in data.frames]
    files = [f"/frame{at}" for at in range(len(frames))]
    table.add("cached metadata of 1,000, requests/s", "dcmdex", h2load(ours.http, [f"/dicom-web{data.of_1000}/metadata"], 200, "--h1", "-c", "8", headers=[("accept", "application/dicom+json")])[0])
    table.add("frames of 0.5 MB, HTTP/1.1, 8 connections, frames/s", "dcmdex", h2load(ours.http, frames, FRAMES_ASKED, "--h1", "-c", "8", headers=octets)[0])
    table.add("frames of 0.5 MB, one HTTP/2 connection, frames/s", "dcmdex", h2load(ours.http, frames, FRAMES_ASKED, "-c", "1", "-m", "32", headers=octets)[0])
    if nginx:
        table.add("cached metadata of 1,000, requests/s", "nginx", h2load(nginx.http, ["/metadata"], 200, "--h1", "-c", "8")[0])
        table.add("frames of 0.5 MB, HTTP/1.1, 8 connections, frames/s", "nginx", h2load(nginx.http, files, FRAMES_ASKED, "--h1", "-c", "8")[0])
        table.add("frames of 0.5 MB, one HTTP/2 connection, frames/s", "nginx", h2load(nginx.http + 1, files, FRAMES_ASKED, "-c", "1", "-m", "32")[0])
    if theirs:
        multipart = [("accept", FRAME_ACCEPT)]
        table.add("frames of 0.5 MB, HTTP/1.1, 8 connections, frames/s", "Orthanc", h2load(theirs.http, frames, 200, "--h1", "-c", "8", headers=multipart)[0])
    for who in filter(None, (ours, theirs)):
        http = Http(who.http)
        begun = time.perf_counter()
        status, size = http.drain(f"/dicom-web{data.large}", SERIES_ACCEPT)
        checked(status, 200, who.name)
        table.add(f"series of {data.slices} slices, GB/s", who.name, size / (time.perf_counter() - begun) / 1e9)
        http.close()
    table.add("5 KB stored, objects/s", "dcmdex", stow_rate(ours, number))
    table.add("5 KB stored, objects/s", "C-STORE", store_rate(node, "DCMDEX"))
    if theirs:
        table.add("5 KB stored, objects/s", "Orthanc", stow_rate(theirs, number))


# What, beside whom (`None`: an absolute goal), and by which factor or figure; lower is better with
# `<`.
GOALS = [
    *((f"search: {name}, p50, ms", "C-FIND", "<", 2.0) for name in ("one study by UID", "studies of a patient", "series of a study")),
    ("search: limit=101, p50, ms", None, "<", 10.0),
    ("metadata of 500 instances, first time, ms", "Orthanc", "<", 1 / 20),
    ("metadata of 500 instances, p50, ms", "Orthanc", "<", 1 / 20),
    ("metadata of 1,000 instances, first time, ms", None, "<", 100.0),
    ("metadata of 1,000 instances, p50, ms", None, "<", 100.0),
    ("304 of 1,000 instances, p50, ms", None, "<", 1.0),
    ("cached metadata of 1,000, requests/s", "nginx", ">", 0.5),
    ("frames of 0.5 MB, HTTP/1.1, 8 connections, frames/s", "nginx", ">", 0.5),
    ("frames of 0.5 MB, one HTTP/2 connection, frames/s", None, ">", 3_000.0),
    ("series of {slices} slices, GB/s", None, ">", 1.0),
    ("200 MiB stored, growth, MB", None, "<", 64.0),
    ("5 KB stored, objects/s", "C-STORE", ">", 0.7),
    ("100 clients, growth, MB", None, "<", 64.0),
    ("search beside 600 slow clients, p50, ms", None, "<", 100.0),
    ("search beside 600 slow clients, slowest of 200, ms", None, "<", 100.0),
]  # fmt: skip


def figure(value):
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def report(options, data, table):
    print(f"- Machine: {machine()}; clients and nodes on the same cores. Load average {os.getloadavg()[1]:.1f}.")
    print(f"- Commit {commit()}; {options.runs} interleaved runs, the median; results compared before.\n")
    print("| what | dcmdex | runs | beside | goal | |\n|---|---:|---|---|---|---|")
    for what, beside, direction, goal in GOALS:
        what = what.format(slices=data.slices)
        ours = table.median(what, "dcmdex")
        runs = " ".join(figure(value) for value in table.rows.get(what, {}).get("dcmdex", []))
        others = "; ".join(f"{who} {figure(table.median(what, who))}" for who in table.rows.get(what, {}) if who != "dcmdex")
        base = table.median(what, beside) if beside else 1
        if ours is None or base is None:
            verdict = "not measured"
        else:
            verdict = "reached" if (ours < goal * base if direction == "<" else ours > goal * base) else "**missed**"
        told = f"{direction} {goal:g}" + (f" x {beside}" if beside else "")
        print(f"| {what} | {figure(ours)} | {runs} | {others} | {told} | {verdict} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder on the disk to measure")
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--index", type=Path, help="a large index for the searches; it is copied")
    parser.add_argument("--built", action="store_true", help="build nothing")
    options = parser.parse_args()
    if not shutil.which("h2load"):
        fail("h2load is not there: apt-get install nghttp2-client")
    if not options.built:
        build("findload", "storeload")
    options.work.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="web-bench-", dir=options.work))
    table = Table()
    try:
        with open(scratch / "log", "wb") as log, contextlib.ExitStack() as running:
            data = Data(scratch / "data", options.slices)
            for name in ("ours", "theirs", "nginx", "large"):
                (scratch / name).mkdir()
            ours = Dcmdex(scratch / "ours", log)
            theirs = Orthanc(scratch / "theirs", log) if PLUGIN.exists() else None
            nginx = Nginx(scratch / "nginx", log) if shutil.which("/usr/sbin/nginx") else None
            node = running.enter_context(ours.start(data))
            peer = running.enter_context(theirs.start(data)) if theirs else None
            if theirs:
                compare(ours, theirs, data)
            if nginx:
                nginx.put("metadata", answer(ours, f"{data.of_1000}/metadata")[1])
                for at, path in enumerate(data.frames):
                    nginx.put(f"frame{at}", answer(ours, path, [("Accept", "application/octet-stream")])[1])
                running.enter_context(nginx.start())
            found = searches(ours.index)
            for number in range(options.runs):
                run(options, data, ours, node, theirs, peer, nginx, table, number, found)
            table.add("100 clients, growth, MB", "dcmdex", hundred_clients(ours, node, data))
            for who in filter(None, (ours, theirs)):
                beside = beside_slow(who, data)
                table.add("search beside 600 slow clients, p50, ms", who.name, beside and beside[0])
                table.add("search beside 600 slow clients, slowest of 200, ms", who.name, beside and beside[1])
            running.close()
            if options.index:
                large(options, scratch / "large", log, table)
    finally:
        shutil.rmtree(scratch)
    report(options, data, table)


def large(options, folder, log, table):
    """The searches of a large index: a copy of it, whose files need not be there."""
    index = folder / "index.db"
    with sqlite3.connect(f"file:{options.index}?mode=ro", uri=True) as source, sqlite3.connect(index) as copy:
        source.backup(copy)
    ours = Dcmdex(folder, log, index)
    with ours.start() as node:
        for _ in range(options.runs):
            for name, target, level, keys, values in searches(index):
                table.add(f"search: {name}, p50, ms, {options.index.name}", "dcmdex", p50(times_ms(ours, [target.replace("{}", value) for value in values])))
                table.add(f"search: {name}, p50, ms, {options.index.name}", "C-FIND", finding(index, ours, node, level, keys, values))
            table.add(f"search: limit=101, p50, ms, {options.index.name}", "dcmdex", p50(times_ms(ours, ["/dicom-web/studies?limit=101"] * 20)))
    GOALS.extend((what, "C-FIND" if "limit" not in what else None, "<", 2.0 if "limit" not in what else 10.0) for what in table.rows if options.index.name in what)


if __name__ == "__main__":
    main()
