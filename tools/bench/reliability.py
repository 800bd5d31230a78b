#!/usr/bin/env python3
"""Kills a node, or cuts the power of its disk, while it receives; then looks for acknowledged objects.

    tools/bench/reliability.py kill     --work DIR [--rounds 500]
    tools/bench/reliability.py powercut --work DIR [--rounds 100] [--node dcmdex|storescp|orthanc]
        [--duplicates keep-both|keep-first|replace] [--journal MIB] [--disks 1|2] [--scan] [--kill-recovery]

kill sends SIGKILL under load and starts the node again on the same index.

powercut needs root and Linux. Index and objects lie on an ext4 file system of their own, in a file
below DIR that is mounted by loop. The FS_IOC_SHUTDOWN ioctl, which xfstests uses, throws away all
that had not reached the disk. Then the node is killed, the file system is mounted again (which
replays its journal), and the node starts again.

--journal is the size of the arrival journal (docs/adr/0039). A small one is full at times, and its
room is used again. 0 means none: each object is flushed by itself.

--disks 2 gives the index and the objects a file system each (root). A power cut then meets one of
them or both. --scan lets `dcmdex scan` of a directory that grows run over and over into the same
index. In half of the rounds of kill it is killed with the node, in the others it goes on.
--kill-recovery ends the next starts in the midst, up to four in a row: by SIGKILL, by a power cut,
or by SIGTERM and SIGKILL while the node closes its index.

Each round checks every content for which a sender had a Success. There are eight senders. One
instance of eight is sent by all of them, each with its own content. With keep-both every content
that was acknowledged must be in the index, as the first location or as a copy, and its object must
be there byte for byte. With keep-first the others are refused, with 0111. With replace one of the
contents must be there. The script also counts short objects under a final name, objects that the
index does not know, half received files, contents that are kept twice, files that a last scan did
not index, starts that were refused, and what `dcmdex check --files` finds. Exit code 1: any of
those. Standard library only.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from acknowledged import FAULTS, SENDERS, Archive, Found, Load
from common import commit, free_port, machine
from disks import Disk
from nodes import NODES, Dcmdex, kill, start

# Rounds after which a new index and a new disk are begun: each round looks at all that there is.
ROUNDS_ON_ONE = 25
# Starts in a row that are ended before the one that is checked.
MOST_STARTS_ENDED = 4


class Home:
    """A node, its disks and the directory that is scanned, for some rounds."""

    def __init__(self, options, totals):
        self.options, self.totals = options, totals
        self.path = Path(tempfile.mkdtemp(prefix=f"{options.how}-", dir=options.work))
        self.disks = []
        if options.disks == 2:
            self.disks = [Disk(self.path, "index-disk"), Disk(self.path, "object-disk")]
        elif options.how == "powercut":
            self.disks = [Disk(self.path, "disk")]
        self.log = open(self.path / "log", "wb")
        places = [disk.path for disk in self.disks] or [self.path]
        self.node = NODES[options.node](self.path, places[0], places[-1])
        self.archive = Archive(self.node, self.path, self.log) if options.scan else None
        self.loads, self.listener = [], None

    def work(self, numbers):
        """Does rounds, and looks at all of them together at last."""
        try:
            for disk in self.disks:
                disk.make()
            self.listener = self.start()
            for number in numbers:
                self.round(number)
                progress(self.totals)
            self.last_look()
            progress(self.totals)
        finally:
            if self.listener is not None:
                kill(self.listener.process)
            if self.archive:
                self.archive.close()
            for disk in self.disks:
                disk.unmount(check=False)
            self.log.close()
        # What is wrong can be looked at.
        if not any(self.totals[name] for name in FAULTS):
            shutil.rmtree(self.path)

    def start(self):
        listener, took = start(self.node, self.log, self.totals)
        self.totals["slowest start, s"] = max(self.totals["slowest start, s"], round(took, 2))
        return listener

    def round(self, number):
        round_number = self.options.seed * 100_000 + number
        load = Load(self.node, self.listener.port, round_number, self.options.duplicates)
        if self.archive:
            self.archive.begin(round_number)
        load.until_busy()
        cut = self.end(load)
        load.wait()
        if self.options.kill_recovery:
            self.end_starts()
        self.listener = self.start()
        if self.archive:
            self.archive.end()
            self.archive.scan()
        found = Found(self.node, self.listener.port)
        found.check(load, self.totals)
        self.loads.append(load)
        if type(self.node) is Dcmdex:
            self.count("orphans", found.orphans())
        if self.archive:
            self.totals["not scanned"] += self.archive.not_indexed(found.known)
            self.totals["scans"] += self.archive.finished
            self.totals["not scanned"] += self.archive.failed
            self.archive.finished = self.archive.failed = 0
        if cut:
            self.totals["cuts of one disk"] += len(cut) < len(self.disks)

    def count(self, fault, found):
        self.totals[fault] += len(found)
        for each in found:
            print(f"{fault}: {each}", file=sys.stderr, flush=True)

    def end(self, load):
        """Ends the node under load; the disks whose power was cut."""
        cut = self.cut_power(load) if self.options.how == "powercut" else []
        # Its index may be on a disk that is gone.
        if self.archive and (cut or random.random() < 0.5):
            self.archive.cut()
            self.archive.kill()
            if cut:
                self.archive.end()
        kill(self.listener.process)
        self.listener = None
        for disk in cut:
            disk.power_on()
        return cut

    def cut_power(self, load=None):
        """Cuts one disk or all of them, in any order."""
        cut = random.sample(self.disks, random.randint(1, len(self.disks)))
        if load is not None:
            load.cut()
        if self.archive:
            self.archive.cut()
        for disk in cut:
            disk.cut_power()
        return cut

    def end_starts(self):
        """Starts the node some times, and ends it while it recovers, or closes its index."""
        for _ in range(random.randint(1, MOST_STARTS_ENDED)):
            command = self.node.command(free_port())
            process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
            # Most of them before it listens, some after that.
            time.sleep(random.random() * random.choice([0.01, 0.05, 0.3]))
            how = random.choice(["kill", "close", self.options.how])
            if how == "close":
                process.send_signal(signal.SIGTERM)
                time.sleep(random.random() * random.choice([0.005, 0.05]))
            cut = self.cut_power() if how == "powercut" else []
            code = process.poll()
            kill(process)
            for disk in cut:
                disk.power_on()
            # -SIGTERM: before it had a handler for it.
            if code not in (None, 0, -signal.SIGTERM) and not cut:
                self.totals["refused starts"] += 1
                print(f"a start that was to be ended had ended with {code}", file=sys.stderr, flush=True)
            self.totals["starts ended"] += 1

    def last_look(self):
        """At all rounds on this index together, and at the index by the program itself."""
        found = Found(self.node, self.listener.port)
        for load in self.loads:
            missing, short = found.lost(load)
            self.totals["missing later"] += missing + short
        if type(self.node) is Dcmdex:
            self.listener.process.terminate()
            code = self.listener.process.wait()
            said = self.node.check()
            if code or said:
                self.totals["check"] += 1
                print(f"the node ended with {code}; check: {said}", file=sys.stderr, flush=True)
            self.listener = None


def progress(totals):
    print(" ".join(f"{name.replace(' ', '-')}={value}" for name, value in totals.items()), file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("how", choices=["kill", "powercut"])
    parser.add_argument("--work", type=Path, required=True, help="folder on the disk to use")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--node", choices=sorted(NODES), default="dcmdex")
    policies = ["keep-both", "keep-first", "replace"]
    parser.add_argument("--duplicates", choices=policies, default="keep-both", help="of dcmdex")
    parser.add_argument("--journal", type=int, default=2, metavar="MIB", help="arrival journal of dcmdex; 0: none")
    parser.add_argument("--disks", type=int, choices=[1, 2], default=1, help="2: one for the index, one for the objects")
    parser.add_argument("--scan", action="store_true", help="scans run into the same index")
    parser.add_argument("--kill-recovery", action="store_true", help="starts are ended as well")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.node != "dcmdex":
        if options.scan or options.kill_recovery:
            parser.error("--scan and --kill-recovery are for dcmdex")
        # Whatever they do with other content under a known UID.
        options.duplicates = "replace"
    Dcmdex.duplicates, Dcmdex.journal_mib = options.duplicates, options.journal
    options.work.mkdir(parents=True, exist_ok=True)
    names = ["rounds", "acknowledged", "missing", "missing later", "short", "bad rounds", "partial", "orphans", "doubled"]
    names += ["not scanned", "check", "refused starts", "refused", "late lost", "scans", "starts ended"]
    totals = dict.fromkeys([*names, "cuts of one disk", "slowest start, s"], 0)
    for first in range(0, options.rounds, ROUNDS_ON_ONE):
        Home(options, totals).work(range(first, min(first + ROUNDS_ON_ONE, options.rounds)))
    variant = f"{options.duplicates}, journal of {options.journal} MiB, {options.disks} disks" + ", scan" * options.scan
    variant += ", recovery killed" * options.kill_recovery
    print(f"- {options.node}, {options.how}, {SENDERS} senders, {variant}. Machine: {machine()}. Commit {commit()}.")
    print(f"| {' | '.join(totals)} |\n|{'---:|' * len(totals)}")
    print(f"| {' | '.join(format(value, ',') for value in totals.values())} |")
    sys.exit(1 if any(totals[name] for name in FAULTS) else 0)


if __name__ == "__main__":
    main()
