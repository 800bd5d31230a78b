"""Nodes that reliability.py and kill_points.py break on purpose: dcmdex, storescp and Orthanc."""

import functools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from common import RELEASE, Ended, Listener, fail, free_port

# A SOP Instance UID as the index packs it: docs/schema.md, `instance`. {row} has its uid_suffix,
# {group} its uid_prefix.
UID = """CASE WHEN typeof({row}.uid_suffix) = 'text' THEN {row}.uid_suffix
         WHEN substr(hex({row}.uid_suffix), 1, 1) = 'B'
         THEN replace(replace(substr(hex({row}.uid_suffix), 2), 'A', '.'), 'F', '')
         ELSE {group}.uid_prefix || replace(replace(hex({row}.uid_suffix), 'A', '.'), 'F', '') END"""
COPIES = f"""SELECT {UID.format(row="c", group="h")}, d.path || '/' || c.file_name
             FROM copy c JOIN directory d ON d.id = c.directory
             JOIN instance_group h ON h.id = c.instance_group WHERE d.place <> 2"""
PORT_IN_USE = b"Address already in use"


class Dcmdex:
    """A node whose index and objects lie in two directories, or in one."""

    called = b"DCMDEX"
    duplicates = "keep-both"
    # Small, so that its end is reached often.
    journal_mib = 2

    def __init__(self, home, index=None, objects=None):
        self.home = home
        self.index, self.objects = (index or home) / "index.db", (objects or home) / "objects"

    def program(self, verb):
        """The beginning of a command line."""
        binary = os.environ.get("DCMDEX_BINARY", RELEASE / "dcmdex")
        config = self.home / "dcmdex.toml"
        journal = f"journal_mib = {self.journal_mib}\njournal_object_kib = 1024\n"
        config.write_text(f'[store]\nduplicates = "{self.duplicates}"\n{journal}')
        return [str(part) for part in (binary, verb, "--config", config, "--index", self.index)]

    def command(self, port):
        storage = ["--storage", str(self.objects), "--ae-title", "DCMDEX"]
        return [*self.program("serve"), *storage, "--bind", "127.0.0.1", "--port", str(port)]

    def scan(self, directory):
        """The command line of a scan into the same index."""
        return [*self.program("scan"), str(directory)]

    def known(self, _port):
        """SOP Instance UID to paths, the first location first, for all that the index has."""
        index = sqlite3.connect(f"file:{self.index}?mode=ro", uri=True)
        try:
            rows = index.execute("SELECT sop_instance_uid, path FROM instances").fetchall()
            copies = index.execute(COPIES).fetchall()
            if index.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                fail("the index is damaged")
        finally:
            index.close()
        known = {uid: [path] for uid, path in rows}
        if len(known) != len(rows):
            fail("an instance stands in the index twice")
        for uid, path in copies:
            if uid not in known:
                fail(f"a copy of {uid} stands in the index without the instance")
            known[uid].append(path)
        return known

    def load(self, path):
        """The bytes of an object; `None` where it is gone."""
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            return None

    def is_own(self, path):
        """Whether the node keeps this object itself."""
        return path is not None and path.startswith(f"{self.root}/")

    @functools.cached_property
    def root(self):
        """The storage directory as the index names it."""
        return self.objects.resolve()

    def files(self):
        """All files of the storage directory but those that say whose it is, and the arrival journal."""
        files = (path for path in self.root.rglob("*") if path.is_file())
        return [path for path in files if path.name not in (".lock", ".index", ".journal", ".storage")]

    def check(self, files=True):
        """What `dcmdex check` has to say, with or without a look at the files; empty where all is well."""
        command = [*self.program("check"), *["--files"] * files]
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return "" if run.returncode == 0 else f"exit code {run.returncode}: {run.stdout}"


class Storescp(Dcmdex):
    called = b"STORESCP"

    def command(self, port):
        self.objects.mkdir(exist_ok=True)
        # +B: as received, and +uf: one process for each association.
        return ["/usr/bin/storescp", "--fork", "+B", "-aet", "STORESCP", "-od", self.objects, port]

    def known(self, _port):
        return {path.name.split(".", 1)[1]: [str(path)] for path in self.files()}


class Orthanc(Dcmdex):
    called = b"ORTHANC"

    def command(self, port):
        self.http = free_port()
        settings = {
            "DicomAet": "ORTHANC",
            "DicomPort": port,
            "HttpPort": self.http,
            "StorageDirectory": str(self.objects),
            "IndexDirectory": str(self.index.parent / "index"),
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
        return {each["MainDicomTags"]["SOPInstanceUID"]: [each["ID"]] for each in instances}

    def load(self, path):
        return self._get(f"/instances/{path}/file")

    def is_own(self, _path):
        return True


NODES = {"dcmdex": Dcmdex, "storescp": Storescp, "orthanc": Orthanc}


def start(node, log, totals):
    """Starts a node; returns it and how many seconds that took.

    A start that is refused for anything but its port is a fault: it is told and counted, and tried twice more.
    """
    attempts_left = 10
    while True:
        port, said_before, begun = free_port(), Path(log.name).stat().st_size, time.monotonic()
        try:
            return Listener(node.command(port), port, log), time.monotonic() - begun
        except Ended:
            said = Path(log.name).read_bytes()[said_before:]
            if PORT_IN_USE not in said:
                totals["refused starts"] += 1
                attempts_left = min(attempts_left, 3)
                print(f"a start was refused: {said.decode(errors='replace')}", file=sys.stderr, flush=True)
            attempts_left -= 1
            if not attempts_left:
                raise


def kill(process):
    """Kills a node, and the processes that it has for its associations."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    except FileNotFoundError:
        children = []
    process.send_signal(signal.SIGKILL)
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    process.wait()
