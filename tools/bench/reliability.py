#!/usr/bin/env python3
"""Kills a node, or cuts the power of its disk, while it receives; then looks for acknowledged objects.

    tools/bench/reliability.py kill     --work DIR [--rounds 500] [--duplicates keep-first|replace]
    tools/bench/reliability.py powercut --work DIR [--rounds 100] [--node dcmdex|storescp|orthanc]

kill sends SIGKILL under load and starts the node again on the same index.

powercut needs root and Linux. Index and objects lie on an ext4 file system of their own, in a file
below DIR that is mounted by loop. The FS_IOC_SHUTDOWN ioctl, which xfstests uses, throws away all
that had not reached the disk. Then the node is killed, the file system is mounted again (which
replays its journal), and the node starts again.

Each round checks every instance for which a sender had a Success. There are eight senders. One
instance is sent by all of them, each with its own content. The instance must be in the index, and
its object must be there, byte for byte as one of them sent it. The script also counts short objects
under a final name, objects that the index does not know, and half received files. Exit code 1: an
acknowledged instance is missing or short. Standard library only.
"""

import argparse
import fcntl
import json
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from common import RELEASE, Ended, Listener, commit, fail, free_port, machine
from dimse import Sender, data_set

SENDERS = 8
# Rounds after which a new index and a new disk are begun: each round looks at all that there is.
ROUNDS_ON_ONE = 25
FS_IOC_SHUTDOWN = (2 << 30) | (4 << 16) | (ord("X") << 8) | 125
NO_LOG_FLUSH = 2


class Dcmdex:
    called = b"DCMDEX"
    duplicates = "keep-first"

    def __init__(self, home):
        self.home, self.index, self.objects = home, home / "index.db", home / "objects"

    def command(self, port):
        binary = os.environ.get("DCMDEX_BINARY", RELEASE / "dcmdex")
        config = self.home / "dcmdex.toml"
        config.write_text(f'[store]\nduplicates = "{self.duplicates}"\n')
        command = [binary, "serve", "--config", config, "--index", self.index, "--storage", self.objects]
        return [*command, "--ae-title", "DCMDEX", "--bind", "127.0.0.1", "--port", port]

    def known(self, _port):
        """SOP Instance UID to path, for all that the index has."""
        index = sqlite3.connect(f"file:{self.index}?mode=ro", uri=True)
        try:
            rows = index.execute("SELECT sop_instance_uid, path FROM instances").fetchall()
            if index.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                fail("the index is damaged")
        finally:
            index.close()
        if len({uid for uid, _ in rows}) != len(rows):
            fail("an instance stands in the index twice")
        return dict(rows)

    def load(self, uid, known):
        return Path(known[uid]).read_bytes() if uid in known else None

    def files(self):
        return [path for path in self.objects.rglob("*") if path.is_file() and path.name not in (".lock", ".index")]


class Storescp(Dcmdex):
    called = b"STORESCP"

    def command(self, port):
        self.objects.mkdir(exist_ok=True)
        # +B: as received, and +uf: one process for each association.
        return ["/usr/bin/storescp", "--fork", "+B", "-aet", "STORESCP", "-od", self.objects, port]

    def known(self, _port):
        return {path.name.split(".", 1)[1]: str(path) for path in self.files()}


class Orthanc(Dcmdex):
    called = b"ORTHANC"

    def command(self, port):
        self.http = free_port()
        settings = {
            "DicomAet": "ORTHANC",
            "DicomPort": port,
            "HttpPort": self.http,
            "StorageDirectory": str(self.objects),
            "IndexDirectory": str(self.home / "index"),
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "Plugins": [],
        }
        (self.home / "orthanc.json").write_text(json.dumps(settings))
        return ["/usr/sbin/Orthanc", self.home / "orthanc.json"]

    def _get(self, path):
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}") as answer:
                    return answer.read()
            except urllib.error.HTTPError:
                return None
            except OSError:
                time.sleep(0.1)
        fail("Orthanc does not answer")

    def known(self, _port):
        instances = json.loads(self._get("/instances?expand"))
        return {each["MainDicomTags"]["SOPInstanceUID"]: each["ID"] for each in instances}

    def load(self, uid, known):
        return self._get(f"/instances/{known[uid]}/file") if uid in known else None


NODES = {"dcmdex": Dcmdex, "storescp": Storescp, "orthanc": Orthanc}


class Load:
    """Senders that send until they are cut off."""

    def __init__(self, node, port, round_number):
        # UIDs; and for each that was sent its contents, of which those that several send have several.
        self.acknowledged, self.sent, self.refused = set(), {}, 0
        # Answers that came after the cut. A real one ends the node with the disk; this one lets it run on for a moment, in which
        # ext4 may say of a sync that it is done because its journal is over.
        self.is_cut, self.late = False, set()
        self.lock = threading.Lock()
        self.threads = [
            threading.Thread(target=self._send, args=(node, port, round_number, number)) for number in range(SENDERS)
        ]
        for thread in self.threads:
            thread.start()

    def _send(self, node, port, round_number, number):
        chance = random.Random(f"{round_number} {number}")
        try:
            sender = Sender(port, node.called)
            for count in range(1_000_000):
                study = f"1.2.826.{round_number + 1}.{count // 40 + 1}"
                series = f"{study}.{number + 1}"
                is_shared = count % 8 == 7
                if is_shared:
                    # One that all of them send, each its own.
                    series = f"{study}.99"
                uid = f"{series}.{count + 1}"
                pixels = chance.randbytes(chance.choice([200, 4_000, 16_000, 70_000]))
                data = data_set(study.encode(), series.encode(), uid.encode(), pixels)
                with self.lock:
                    self.sent.setdefault(uid, []).append(data)
                status = sender.store(count % 60_000 + 1, uid.encode(), data)
                with self.lock:
                    if status == 0:
                        (self.late if self.is_cut else self.acknowledged).add(uid)
                    # Where the first one is kept, the others are told so: Duplicate SOP Instance.
                    elif not self.is_cut and not (is_shared and status == 0x0111):
                        self.refused += 1
        except OSError:
            pass

    def until_busy(self):
        """Waits for a random number of answers, or for two seconds."""
        wanted, end = random.randint(1, 400), time.monotonic() + 2
        while len(self.acknowledged) < wanted and time.monotonic() < end:
            time.sleep(0.005)

    def cut(self):
        """From here on no answer counts."""
        with self.lock:
            self.is_cut = True

    def wait(self):
        for thread in self.threads:
            thread.join()


def check(node, port, load, totals):
    """Holds what is there after the restart against what was acknowledged."""
    known = node.known(port)
    missing = short = 0
    is_whole = lambda uid, kept: any(kept.endswith(data) for data in load.sent[uid])
    for uid in load.acknowledged:
        kept = node.load(uid, known)
        if kept is None:
            missing += 1
        elif not is_whole(uid, kept):
            short += 1
    totals["late lost"] += sum(node.load(uid, known) is None for uid in load.late)
    # What was not acknowledged may be there or not, but not in part.
    for uid in load.sent:
        if uid not in load.acknowledged and uid not in load.late and uid in known:
            kept = node.load(uid, known)
            totals["partial"] += kept is None or not is_whole(uid, kept)
    if type(node) is Dcmdex:
        paths = set(known.values())
        totals["orphans"] += sum(str(path) not in paths for path in node.files())
    totals["acknowledged"] += len(load.acknowledged)
    totals["refused"] += load.refused
    totals["missing"] += missing
    totals["short"] += short
    totals["rounds"] += 1
    totals["bad rounds"] += bool(missing or short)


def start(node, log):
    for attempts_left in (2, 1, 0):
        port = free_port()
        begun = time.monotonic()
        try:
            return Listener(node.command(port), port, log), time.monotonic() - begun
        except Ended:
            if not attempts_left:
                raise


def stop(listener):
    """Kills a node, and the processes that it has for its associations."""
    pid = listener.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    listener.process.send_signal(signal.SIGKILL)
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    listener.process.wait()


def kill_rounds(options, totals):
    for first in range(0, options.rounds, ROUNDS_ON_ONE):
        home = Path(tempfile.mkdtemp(prefix="kill-", dir=options.work))
        try:
            node = NODES[options.node](home)
            with open(home / "log", "wb") as log:
                listener, _ = start(node, log)
                for number in range(first, min(first + ROUNDS_ON_ONE, options.rounds)):
                    load = Load(node, listener.port, options.seed * 100_000 + number)
                    load.until_busy()
                    stop(listener)
                    load.wait()
                    listener, took = start(node, log)
                    totals["slowest start, s"] = max(totals["slowest start, s"], round(took, 2))
                    check(node, listener.port, load, totals)
                    progress(totals)
                stop(listener)
        finally:
            shutil.rmtree(home)


def power_cut_rounds(options, totals):
    if os.geteuid() != 0:
        fail("a power cut needs root: mount and FS_IOC_SHUTDOWN")
    home = Path(tempfile.mkdtemp(prefix="powercut-", dir=options.work))
    image, mount = home / "disk.img", home / "disk"
    mount.mkdir()
    try:
        for number in range(options.rounds):
            if number % ROUNDS_ON_ONE == 0:
                # A new disk now and then, so that it does not fill up.
                with open(image, "wb") as file:
                    file.truncate(2 << 30)
                subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
            mounted = ["mount", "-o", "loop", str(image), str(mount)]
            subprocess.run(mounted, check=True)
            node = NODES[options.node](mount)
            with open(home / "log", "ab") as log:
                listener, _ = start(node, log)
                load = Load(node, listener.port, options.seed * 100_000 + number)
                load.until_busy()
                load.cut()
                cut_power(mount)
                stop(listener)
                load.wait()
                unmount(mount)
                subprocess.run(mounted, check=True)
                listener, took = start(node, log)
                totals["slowest start, s"] = max(totals["slowest start, s"], round(took, 2))
                check(node, listener.port, load, totals)
                stop(listener)
            unmount(mount)
            progress(totals)
    finally:
        unmount(mount, check=False)
        shutil.rmtree(home)


def cut_power(mount):
    directory = os.open(mount, os.O_RDONLY)
    try:
        fcntl.ioctl(directory, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    finally:
        os.close(directory)


def unmount(mount, check=True):
    # A process that has just been killed may hold it for a moment.
    for _ in range(100):
        if subprocess.run(["umount", str(mount)], stderr=subprocess.DEVNULL).returncode == 0 or not os.path.ismount(mount):
            return
        time.sleep(0.05)
    if check:
        fail(f"{mount} cannot be unmounted")


def progress(totals):
    print(" ".join(f"{name}={value}" for name, value in totals.items()), file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("how", choices=["kill", "powercut"])
    parser.add_argument("--work", type=Path, required=True, help="folder on the disk to use")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--node", choices=sorted(NODES), default="dcmdex")
    parser.add_argument("--duplicates", choices=["keep-first", "replace"], default="keep-first", help="of dcmdex")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    Dcmdex.duplicates = options.duplicates
    options.work.mkdir(parents=True, exist_ok=True)
    names = ["rounds", "acknowledged", "missing", "short", "bad rounds", "partial", "orphans", "refused", "late lost", "slowest start, s"]
    totals = dict.fromkeys(names, 0)
    {"kill": kill_rounds, "powercut": power_cut_rounds}[options.how](options, totals)
    print(f"- {options.node}, {options.how}, {SENDERS} senders. Machine: {machine()}. Commit {commit()}.")
    print(f"| {' | '.join(totals)} |\n|{'---:|' * len(totals)}")
    print(f"| {' | '.join(format(value, ',') for value in totals.values())} |")
    sys.exit(1 if totals["missing"] or totals["short"] else 0)


if __name__ == "__main__":
    main()
