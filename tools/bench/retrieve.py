#!/usr/bin/env python3
"""Times C-GET of one series from dcmdex, dcmqrscp and Orthanc, and prints a table.

    tools/bench/retrieve.py [--slices 500] [--size 524288] [--times 5] [--index FILE]

One client fetches the same objects from each. A plain copy of the files to a socket stands beside
them. `--index` also takes the time to the first object on a large index: the series is added to a
copy of it. Peers that are not installed are left out. Standard library only; the client is the
generator `retrieveload`.
"""

import argparse
import json
import os
import shutil
import struct
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from common import RELEASE, Listener, build, commit, free_port, machine, serve

CLASS = "1.2.840.10008.5.1.4.1.1.2"
STUDY, SERIES = "1.2.826.0.1.3680043.9.7777.1", "1.2.826.0.1.3680043.9.7777.1.1"


def element(group, number, vr, value):
    if isinstance(value, str):
        value = value.encode()
    value += (b"\0" if vr in ("UI", "OB", "OW") else b" ") * (len(value) % 2)
    if vr in ("OB", "OW"):
        return struct.pack("<HH2sHI", group, number, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def ct_slice(number, size):
    uid = f"{SERIES}.{number}"
    us = lambda value: struct.pack("<H", value)
    meta = element(2, 1, "OB", b"\0\1") + element(2, 2, "UI", CLASS) + element(2, 3, "UI", uid)
    meta += element(2, 0x10, "UI", "1.2.840.10008.1.2.1") + element(2, 0x12, "UI", "1.2.3")
    rows = 512
    data = [
        element(8, 0x16, "UI", CLASS), element(8, 0x18, "UI", uid), element(8, 0x20, "DA", "20240102"),
        element(8, 0x30, "TM", "101112"), element(8, 0x50, "SH", "A1"), element(8, 0x60, "CS", "CT"),
        element(8, 0x90, "PN", ""), element(0x10, 0x10, "PN", "Bench^Retrieve"), element(0x10, 0x20, "LO", "BENCH"),
        element(0x10, 0x30, "DA", ""), element(0x10, 0x40, "CS", "O"), element(0x20, 0xD, "UI", STUDY),
        element(0x20, 0xE, "UI", SERIES), element(0x20, 0x10, "SH", "1"), element(0x20, 0x11, "IS", "1"),
        element(0x20, 0x13, "IS", str(number)), element(0x28, 2, "US", us(1)),
        element(0x28, 4, "CS", "MONOCHROME2"), element(0x28, 0x10, "US", us(rows)),
        element(0x28, 0x11, "US", us(max(1, size // rows // 2))), element(0x28, 0x100, "US", us(16)),
        element(0x28, 0x101, "US", us(16)), element(0x28, 0x102, "US", us(15)), element(0x28, 0x103, "US", us(0)),
        element(0x7FE0, 0x10, "OW", os.urandom(size)),
    ]  # fmt: skip
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta)) + meta + b"".join(data)


def load(name, times, *arguments):
    command = [RELEASE / "retrieveload", "--name", name, "--times", times, *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout)


def series(node, called, times):
    return load(called, times, "--to", node.address, "--called", called, "--level", "STUDY", "--uid", STUDY)


def dcmdex(files, scratch, log, times):
    index = scratch / "index.db"
    subprocess.run([RELEASE / "dcmdex", "scan", "--index", index, files], check=True, stdout=log, stderr=log)
    with serve(index, scratch / "objects", log) as node:
        got = series(node, "DCMDEX", times)
        got["peak_rss_mb"] = node.peak_rss_mb()
    return got


def dcmqrscp(files, scratch, log, times):
    storage, port = scratch / "qrscp", free_port()
    storage.mkdir()
    copies = [shutil.copy(file, storage) for file in sorted(files.iterdir())]
    config = scratch / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\nHostTable BEGIN\nHostTable END\n"
        f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\nQRSCP {storage} RW (2000, 10240mb) ANY\nAETable END\n"
    )
    subprocess.run(["dcmqridx", storage, *copies], check=True, stdout=log, stderr=log)
    with Listener(["dcmqrscp", "-c", config], port, log) as node:
        return series(node, "QRSCP", times)


def orthanc(files, scratch, log, times):
    dicom, http = free_port(), free_port()
    config = scratch / "orthanc.json"
    settings = {
        "DicomAet": "ORTHANC", "DicomPort": dicom, "HttpPort": http, "AuthenticationEnabled": False,
        "StorageDirectory": str(scratch / "orthanc"), "IndexDirectory": str(scratch / "orthanc"), "Plugins": [],
        "DicomAlwaysAllowGet": True, "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": False,
    }  # fmt: skip
    config.write_text(json.dumps(settings))
    with Listener(["/usr/sbin/Orthanc", config], dicom, log) as node:
        for file in sorted(files.iterdir()):
            urllib.request.urlopen(f"http://127.0.0.1:{http}/instances", data=file.read_bytes()).read()
        return series(node, "ORTHANC", times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("--size", type=int, default=512 * 1024, help="bytes of pixel data in each")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--index", type=Path, help="a large index, copied and added to")
    options = parser.parse_args()
    build("retrieveload")
    rows = []
    with tempfile.TemporaryDirectory() as scratch, open(Path(scratch) / "log", "wb") as log:
        scratch = Path(scratch)
        files = scratch / "files"
        files.mkdir()
        for number in range(1, options.slices + 1):
            (files / f"{number:05}.dcm").write_bytes(ct_slice(number, options.size))
        rows.append(load("plain copy of the files to a socket", options.times, "--copy", files))
        rows.append(dcmdex(files, scratch, log, options.times))
        for peer, program in ((dcmqrscp, "dcmqrscp"), (orthanc, "/usr/sbin/Orthanc")):
            if shutil.which(program):
                rows.append(peer(files, scratch, log, options.times))
        if options.index:
            index = scratch / "large.db"
            subprocess.run(["sqlite3", options.index, f".backup {index}"], check=True)
            subprocess.run([RELEASE / "dcmdex", "scan", "--index", index, files], check=True, stdout=log, stderr=log)
            with serve(index, scratch / "objects2", log) as node:
                got = series(node, "DCMDEX", options.times)
                rows.append({**got, "name": f"DCMDEX on {options.index.name}"})
    print(f"- Machine: {machine()}; client and node on the same cores; files in the page cache.")
    print(f"- {options.slices} slices of {options.size:,} bytes, {options.times} times, the median. Commit {commit()}.\n")
    print("| from | seconds | objects/s | GB/s | first object, ms | first object at worst, ms |")
    print("|---|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['name']} | {row['median_s']:.3f} | {row['objects_per_s']:,} | {row['gb_per_s']:.2f} "
            f"| {row['first_ms']:.2f} | {row['first_max_ms']:.2f} |"
        )


if __name__ == "__main__":
    main()
