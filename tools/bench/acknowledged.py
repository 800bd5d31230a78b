"""What senders were told and what a scan has seen, and whether it is all there."""

import hashlib
import random
import signal
import struct
import subprocess
import sys
import threading
import time

from dimse import EXPLICIT_LE, SECONDARY_CAPTURE, Sender, _explicit, data_set

SENDERS = 8
# Series of instances that all senders send, and of those that lie in the directory of the scan as
# well.
SHARED, SCANNED = 99, 98
SIZES = [200, 4_000, 16_000, 70_000, 400_000]
FAULTS = ["missing", "missing later", "short", "partial", "orphans", "doubled", "not scanned", "check", "refused starts"]


def digest(data):
    return hashlib.blake2b(data, digest_size=16).digest()


def data_set_digest(file):
    """That of the data set in a file with File Meta Information; `None` where there is none."""
    if len(file) < 144 or file[128:132] != b"DICM":
        return None
    (length,) = struct.unpack_from("<I", file, 140)
    return digest(file[144 + length :])


def instance_of(round_number, count, series_number, chance):
    """UID and data set."""
    study = f"1.2.826.{round_number + 1}.{count // 40 + 1}"
    series = f"{study}.{series_number}"
    uid = f"{series}.{count + 1}"
    return uid, data_set(study.encode(), series.encode(), uid.encode(), chance.randbytes(chance.choice(SIZES)))


def scanned_instance(round_number, count, variant):
    """One that a scan may find in a file, and a sender may send: the same content wherever the variant is the same."""
    return instance_of(round_number, count, SCANNED, random.Random(f"{round_number} {count} {variant}"))


class Told:
    """What was sent, and what of it was acknowledged."""

    def __init__(self, duplicates="keep-both"):
        self.duplicates = duplicates
        # SOP Instance UID to digests of contents.
        self.sent, self.acknowledged, self.late = {}, {}, {}
        self.answers = self.refused = 0
        # Answers that came after the cut do not count. A real one ends the node with the disk. This
        # one lets it run on for a moment. In that moment ext4 may report a sync as done because its
        # journal is over.
        self.is_cut = False
        self.lock = threading.Lock()

    def store(self, sender, message_id, uid, data):
        content = digest(data)
        with self.lock:
            self.sent.setdefault(uid, set()).add(content)
        status = sender.store(message_id, uid.encode(), data)
        with self.lock:
            if status == 0:
                (self.late if self.is_cut else self.acknowledged).setdefault(uid, set()).add(content)
                self.answers += not self.is_cut
            elif not self.is_cut and not self._may_be_refused(uid, status):
                self.refused += 1

    def _may_be_refused(self, uid, status):
        # Duplicate SOP Instance: the first one is kept, and the others are told so.
        has_several = uid.split(".")[-2] in (str(SHARED), str(SCANNED))
        return self.duplicates == "keep-first" and status == 0x0111 and has_several

    def cut(self):
        """From here on no answer counts."""
        with self.lock:
            self.is_cut = True


class Load(Told):
    """Senders that send until they are cut off.

    Each sends instances of its own; one of eight is sent by all of them, each with its own content, and one of eight may
    lie in the directory of a scan. One of ten is sent a second time.
    """

    def __init__(self, node, port, round_number, duplicates):
        super().__init__(duplicates)
        self.threads = [
            threading.Thread(target=self._send, args=(node, port, round_number, number)) for number in range(SENDERS)
        ]
        for thread in self.threads:
            thread.start()

    def _send(self, node, port, round_number, number):
        chance = random.Random(f"{round_number} {number}")
        sent = []
        try:
            sender = Sender(port, node.called)
            for message_id in range(1_000_000):
                if sent and chance.random() < 0.1:
                    uid, data = chance.choice(sent)
                else:
                    uid, data = self._next(round_number, number, len(sent), chance)
                    sent.append((uid, data))
                self.store(sender, message_id % 60_000 + 1, uid, data)
        except OSError:
            pass

    def _next(self, round_number, number, count, chance):
        if count % 8 == 5 and number < 2:
            return scanned_instance(round_number, count, number)
        return instance_of(round_number, count, SHARED if count % 8 == 7 else number + 1, chance)

    def until_busy(self, answers=None, seconds=2):
        """Waits for a random number of answers, or for some seconds."""
        wanted, end = answers or random.randint(1, 400), time.monotonic() + seconds
        while self.answers < wanted and time.monotonic() < end:
            time.sleep(0.005)

    def wait(self):
        for thread in self.threads:
            thread.join()


class Archive:
    """A directory that grows while scans of it run into the index of a node, one after the other."""

    def __init__(self, node, home, log):
        self.node, self.path, self.log = node, home.resolve() / "archive", log
        self.path.mkdir()
        # Path to SOP Instance UID.
        self.files = {}
        self.process, self.thread = None, None
        self.finished = self.failed = 0
        self.is_cut, self.ending = False, threading.Event()

    def begin(self, round_number):
        self.ending.clear()
        self.is_cut = False
        self.thread = threading.Thread(target=self._grow, args=(round_number,))
        self.thread.start()

    def _grow(self, round_number):
        chance = random.Random(f"{round_number} archive")
        count = 0
        while not self.ending.is_set():
            for _ in range(chance.randrange(1, 40)):
                # Of what senders send: the content of the first, of the second, or a third one.
                self._write(round_number, count, *scanned_instance(round_number, count, chance.randrange(3)))
                count += 1
            self.process = subprocess.Popen(self.node.scan(self.path), stdout=self.log, stderr=self.log)
            if self.ending.is_set():
                self.kill()
            code = self.process.wait()
            if code == 0:
                self.finished += 1
            elif not self.is_cut and code != -signal.SIGKILL:
                self.failed += 1
                print(f"a scan ended with {code}, see {self.log.name}", file=sys.stderr, flush=True)

    def _write(self, round_number, count, uid, data):
        meta = _explicit(2, 1, b"OB", b"\0\1") + _explicit(2, 2, b"UI", SECONDARY_CAPTURE) + _explicit(2, 3, b"UI", uid.encode())
        meta += _explicit(2, 0x10, b"UI", EXPLICIT_LE)
        meta = _explicit(2, 0, b"UL", struct.pack("<I", len(meta))) + meta
        directory = self.path / f"{round_number}/{count // 16}"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{count}.dcm"
        # Under its name at once: a scan takes a half written file for what it is.
        new = self.path.parent / "new"
        new.write_bytes(bytes(128) + b"DICM" + meta + data)
        new.rename(path)
        self.files[str(path)] = uid

    def cut(self):
        """From here on a scan may fail."""
        self.is_cut = True

    def kill(self):
        """Kills the scan that runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

    def end(self):
        """Has the scan that runs finish, or be what it is killed for."""
        self.ending.set()
        self.thread.join()

    def close(self):
        """Ends whatever runs, without a look at what comes of it."""
        if self.thread is not None and self.thread.is_alive():
            self.cut()
            self.ending.set()
            self.kill()
            self.end()

    def write(self, round_number, count):
        """Makes so many files more."""
        for number in range(count):
            self._write(round_number, number, *scanned_instance(round_number, number, number % 3))

    def scan(self):
        """A last scan, which has to succeed."""
        code = subprocess.run(self.node.scan(self.path), stdout=self.log, stderr=self.log).returncode
        self.failed += code != 0
        self.finished += code == 0

    def not_indexed(self, known):
        """How many of its files the index does not have under their instances."""
        return sum(path not in known.get(uid, ()) for path, uid in self.files.items())


class Found:
    """What the index and the storage directory have after a restart."""

    def __init__(self, node, port):
        self.node, self.known, self.read = node, node.known(port), {}

    def contents(self, uid):
        """Digests of the objects of an instance that the node keeps itself; `None` for one that is not whole."""
        if uid not in self.read:
            paths = [path for path in self.known.get(uid, ()) if self.node.is_own(path)]
            files = [self.node.load(path) for path in paths]
            self.read[uid] = [None if file is None else data_set_digest(file) for file in files]
        return self.read[uid]

    def lost(self, load):
        """How many acknowledged contents are missing, and how many instances have objects that are not whole."""
        missing = short = 0
        for uid, contents in load.acknowledged.items():
            kept = self.contents(uid)
            if any(it not in load.sent[uid] for it in kept):
                short += 1
            elif load.duplicates == "replace":
                missing += not kept
            else:
                missing += len(contents - set(kept))
        return missing, short

    def check(self, load, totals):
        """Holds what there is against what was acknowledged in a round."""
        missing, short = self.lost(load)
        totals["missing"] += missing
        totals["short"] += short
        totals["late lost"] += sum(not it & set(self.contents(uid)) for uid, it in load.late.items())
        for uid, contents in load.sent.items():
            kept = self.contents(uid)
            # What was not acknowledged may be there or not, but not in part.
            if uid not in load.acknowledged and uid not in load.late:
                totals["partial"] += any(it not in contents for it in kept)
            totals["doubled"] += len(kept) != len(set(kept))
        totals["acknowledged"] += load.answers
        totals["refused"] += load.refused
        totals["rounds"] += 1
        totals["bad rounds"] += bool(missing or short)

    def orphans(self):
        """Objects that the index does not know."""
        known = {path for paths in self.known.values() for path in paths}
        return [path for path in self.node.files() if str(path) not in known]
