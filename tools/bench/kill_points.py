#!/usr/bin/env python3
"""Ends a node at each moment at which it changes files: when it starts, stores, recovers, stops.

    tools/bench/kill_points.py kill     --work DIR [--points N] [--journal MIB] [--again] [SCENARIO...]
    tools/bench/kill_points.py powercut --work DIR [--points N] [--journal MIB] [--again] [--disks 1|2] [SCENARIO...]

reliability.py ends a node at random moments. This script tries all of them. A program runs under
ptrace until it is about to make its n-th change of a file: a write, a sync, a new name (changes.py).
There it is killed, or the power of its disks is cut as reliability.py does it. Then a node must
start. All that was acknowledged must be there, and nothing that the index does not know. The node
must store, stop with exit code 0 and leave the index as one file, and `dcmdex check` must find
nothing. n begins at 1 and ends where the program comes to its end.

--points N tries N of them for each scenario, evenly spread. --again ends the start that follows as
well, at a random change. Exit code 1: something was wrong; 77: nothing can be traced here. Root is
needed for a power cut. Linux only. Standard library only.
"""

import argparse
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fairness
from acknowledged import Archive, Found, Load, Told, instance_of
from changes import Traced, is_possible
from common import ROOT, Ended, Listener, commit, fail, free_port, machine
from dimse import Sender
from disks import Disk
from nodes import Dcmdex, kill

OLD_INDEX = ROOT / "fixtures/schema/v1_objects.sql"
# Pages of the log from which a commit copies it back: src/db, WAL_AUTOCHECKPOINT_PAGES.
CHECKPOINT_PAGES = 4096
# Changes of a start, about: of those one is chosen for --again.
CHANGES_OF_A_START = 60


class Fault(Exception):
    """Something that must not be."""


class Home:
    """A node and its disks, for one moment."""

    def __init__(self, options, scenario):
        self.options, self.scenario = options, scenario
        self.path = Path(tempfile.mkdtemp(prefix=f"{scenario.name}-", dir=options.work)).resolve()
        names = {1: ["disk"], 2: ["index-disk", "object-disk"]}[options.disks]
        self.disks = [Disk(self.path, name, 256) for name in names] if options.how == "powercut" else []
        places = [disk.path for disk in self.disks] or [self.path]
        self.node = Dcmdex(self.path, places[0], places[-1])
        self.node.duplicates = scenario.duplicates
        self.log = open(self.path / "log", "wb")
        self.archive = Archive(self.node, self.path, self.log)
        self.told, self.loads, self.listener, self.traced = Told(scenario.duplicates), [], None, None
        for disk in self.disks:
            disk.make()

    def close(self):
        if self.traced is not None and self.traced.is_alive():
            self.traced.end(0)
        if self.listener is not None:
            kill(self.listener.process)
        for disk in self.disks:
            disk.unmount(check=False)
        self.log.close()

    def start(self):
        """A node that nobody ends."""
        port = free_port()
        begun = Path(self.log.name).stat().st_size
        try:
            self.listener = Listener(self.serve(port), port, self.log)
        except Ended:
            said = Path(self.log.name).read_bytes()[begun:].decode(errors="replace")
            raise Fault(f"a start was refused: {said}") from None

    def serve(self, port):
        return [*self.node.command(port), *self.scenario.flags]

    def stop(self):
        self.listener.process.terminate()
        code, self.listener = self.listener.process.wait(), None
        if code != 0:
            raise Fault(f"an orderly stop ended with {code}")

    def load(self, answers):
        """Many at once to a node that is killed then."""
        load = Load(self.node, self.listener.port, 7, self.scenario.duplicates)
        load.until_busy(answers, 20)
        kill(self.listener.process)
        self.listener = None
        load.wait()
        self.loads.append(load)

    def trace(self, command, end_at, is_armed=True):
        """Begins the program that is to be ended."""
        self.traced = Traced(command, self.log, self.path, end_at, self.cut, is_armed)
        return self.traced

    def cut(self):
        """What happens before the program is killed."""
        self.told.cut()
        cut = random.sample(self.disks, random.randint(1, len(self.disks))) if self.disks else []
        for disk in cut:
            disk.cut_power()

    def wait_until_it_listens(self, port):
        """Whether it does so before its end."""
        while self.traced.is_alive():
            try:
                return Sender(port, self.node.called)
            except OSError:
                time.sleep(0.005)
        return None

    def store(self, sender, numbers):
        """Stores instances of these numbers, each with a content, the next with the same UID as the second, and the first again."""
        first, second, *others = [instance_of(3, number, 1, random.Random(number)) for number in numbers]
        other_content = instance_of(3, numbers[1], 1, random.Random(-1))
        # One after the other, so that their changes have always the same order.
        try:
            for message_id, (uid, data) in enumerate([first, second, other_content, *others, first]):
                self.told.store(sender, message_id + 1, uid, data)
        except OSError:
            return

    def serve_and_store(self, end_at, numbers):
        """A traced node from its start to its orderly stop."""
        port = free_port()
        self.trace(self.serve(port), end_at)
        sender = self.wait_until_it_listens(port)
        if sender is not None:
            self.store(sender, numbers)
            sender.close()
        self.traced.signal(signal.SIGTERM)

    def power_on(self):
        for disk in self.disks:
            disk.power_on()

    def end_a_start(self):
        """Ends the start after the one that was ended."""
        port = free_port()
        again = self.trace(self.serve(port), random.randint(1, CHANGES_OF_A_START))
        if self.wait_until_it_listens(port) is not None:
            again.signal(signal.SIGTERM)
        self.ended(again)
        self.power_on()

    def ended(self, traced):
        """Waits for the end of a traced program, which must not come of itself."""
        code = traced.end()
        # -SIGTERM: before it had a handler for it.
        if not traced.was_ended and code not in (0, -signal.SIGTERM):
            raise Fault(f"{traced.command[1]} ended with {code}")

    def check(self):
        """Looks at what is there after all that."""
        self.start()
        scenario = self.scenario
        scenario.look(self)
        sender = Sender(self.listener.port, self.node.called)
        after = Told(scenario.duplicates)
        uid, data = instance_of(4, 1, 1, random.Random(5))
        after.store(sender, 1, uid, data)
        sender.close()
        if after.answers != 1:
            raise Fault("the next instance is not stored")
        self.stop()
        if said := self.node.check(scenario.has_files):
            raise Fault(f"check: {said}")
        left = {path.name for path in self.node.index.parent.glob("index.db-*")} - {"index.db-commitments"}
        if left != {"index.db-turn"}:
            raise Fault(f"after an orderly stop there is {left}")

    def look_for_acknowledged(self):
        found = Found(self.node, self.listener.port)
        totals = dict.fromkeys(["missing", "short", "partial", "doubled", "late lost"], 0)
        totals |= dict.fromkeys(["acknowledged", "refused", "rounds", "bad rounds"], 0)
        for told in [self.told, *self.loads]:
            found.check(told, totals)
        wrong = {name: totals[name] for name in ("missing", "short", "partial", "doubled", "refused") if totals[name]}
        if wrong:
            raise Fault(f"{wrong}")
        if orphans := found.orphans():
            raise Fault(f"orphans: {orphans}")


class Scenario:
    """What is there before, what the program that is ended does, and what must be there then."""

    name = ""
    duplicates = "keep-both"
    flags = ()
    has_files = True
    hows = ("kill", "powercut")

    def prepare(self, home):
        """Makes what is there before."""

    def run(self, home, end_at):
        """Runs the program that is ended, to its end."""
        home.serve_and_store(end_at, range(1, 4))

    def look(self, home):
        """Looks at what is there."""
        home.look_for_acknowledged()


class First(Scenario):
    """The first start on nothing, some instances, an orderly stop."""

    name = "first"


class Again(Scenario):
    """The same on an index that was closed in order."""

    name = "again"

    def prepare(self, home):
        home.start()
        sender = Sender(home.listener.port, home.node.called)
        home.store(sender, range(11, 14))
        sender.close()
        home.stop()


class Replace(Again):
    """The same where a new content takes the place of the one before."""

    name = "replace"
    duplicates = "replace"


class Recovery(Scenario):
    """A start after a kill under load, and an orderly stop."""

    name = "recovery"

    def prepare(self, home):
        home.start()
        home.load(60)

    def run(self, home, end_at):
        port = free_port()
        home.trace(home.serve(port), end_at)
        if sender := home.wait_until_it_listens(port):
            sender.close()
        home.traced.signal(signal.SIGTERM)


class Checkpoint(Scenario):
    """A commit that copies the write-ahead log back."""

    name = "checkpoint"

    def run(self, home, end_at):
        port = free_port()
        traced = home.trace(home.serve(port), end_at, is_armed=False)
        sender = home.wait_until_it_listens(port)
        if sender is None:
            raise Fault("the node ended before it was to")
        home.store(sender, range(11, 14))
        self._fill_log(home.node.index)
        traced.is_armed = True
        home.store(sender, range(1, 4))
        sender.close()
        traced.signal(signal.SIGTERM)

    def _fill_log(self, index):
        connection = sqlite3.connect(index, isolation_level=None, timeout=60)
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE filler (content)")
        connection.execute("INSERT INTO filler VALUES (zeroblob(400000))")
        log = index.with_name("index.db-wal")
        while log.stat().st_size < CHECKPOINT_PAGES * 8192:
            connection.execute("UPDATE filler SET content = randomblob(400000)")
        connection.execute("DROP TABLE filler")
        # Not the last one: the node has it open.
        connection.close()


class Scan(Scenario):
    """A scan into an index whose node was killed."""

    name = "scan"

    def prepare(self, home):
        home.start()
        home.load(40)
        home.archive.write(7, 100)

    def run(self, home, end_at):
        home.trace(home.node.scan(home.archive.path), end_at)

    def look(self, home):
        home.archive.scan()
        if home.archive.failed:
            raise Fault("the next scan does not come to its end")
        if count := home.archive.not_indexed(home.node.known(None)):
            raise Fault(f"{count} files of the archive are not indexed")
        home.look_for_acknowledged()


class FirstScan(Scan):
    """A scan that makes the index."""

    name = "first-scan"

    def prepare(self, home):
        home.archive.write(7, 100)


class Beside(Scan):
    """A scan beside a node, which goes on when the scan is killed, and is killed after that."""

    name = "beside"
    hows = ("kill",)

    def prepare(self, home):
        home.start()
        home.archive.write(7, 100)

    def run(self, home, end_at):
        sender = Sender(home.listener.port, home.node.called)
        home.store(sender, range(11, 14))
        home.trace(home.node.scan(home.archive.path), end_at).end()
        # Its end is not that of the node: what is answered then counts.
        home.told.is_cut = False
        home.store(sender, range(1, 4))
        kill(home.listener.process)
        home.listener = None


class Find(Recovery):
    """A query from the command line of an index whose node was killed."""

    name = "find"

    def run(self, home, end_at):
        home.trace([*home.node.program("find"), "--level", "IMAGE", "SOPInstanceUID"], end_at)


class MetadataOnly(Again):
    """A node that keeps the index entry alone."""

    name = "metadata-only"
    flags = ("--metadata-only",)

    def look(self, home):
        known = home.node.known(None)
        if lost := set(home.told.acknowledged) - set(known):
            raise Fault(f"missing: {lost}")


class Commitment(Scenario):
    """A storage commitment request, whose report cannot be delivered."""

    name = "commitment"

    def __init__(self):
        # Nobody listens there.
        self.flags = ("--peer", f"FAIR=127.0.0.1:{free_port()}")

    def run(self, home, end_at):
        self.is_accepted = False
        port = free_port()
        home.trace(home.serve(port), end_at)
        if sender := home.wait_until_it_listens(port):
            sender.close()
            try:
                peer = fairness.Peer(port, "127.0.0.1")
                peer.socket.sendall(fairness.transaction())
                self.is_accepted = peer.status() == 0 and not home.told.is_cut
                peer.socket.close()
            except OSError:
                pass
        home.traced.signal(signal.SIGTERM)

    def look(self, home):
        kept = list(home.node.index.with_name("index.db-commitments").glob("*.json"))
        if self.is_accepted and not kept:
            raise Fault("a storage commitment request that was accepted is gone")


class Migration(Scenario):
    """The first start on an index of an older version."""

    name = "migration"
    has_files = False

    def prepare(self, home):
        connection = sqlite3.connect(home.node.index)
        connection.executescript(OLD_INDEX.read_text())
        self.count = connection.execute("SELECT count(*) FROM instance").fetchone()
        connection.close()
        # It was there for long: SQLite does not wait until the removal of its journal is durable.
        os.sync()

    def look(self, home):
        index = sqlite3.connect(f"file:{home.node.index}?mode=ro", uri=True)
        old = "SELECT count(*) FROM instances WHERE sop_instance_uid NOT LIKE '1.2.826.%'"
        count = index.execute(old).fetchone()
        index.close()
        if count != self.count:
            raise Fault(f"of {self.count} instances there are {count}")
        home.look_for_acknowledged()


SCENARIOS = [
    First, Again, Replace, Recovery, Checkpoint, Scan, FirstScan, Beside, Find, MetadataOnly, Commitment, Migration,
]  # fmt: skip


def one(options, scenario, end_at):
    """Tries one moment. Returns how many changes there were, and what is wrong."""
    home = Home(options, scenario)
    fault, point = None, "before the end"
    try:
        scenario.prepare(home)
        scenario.run(home, end_at)
        home.ended(home.traced)
        traced = home.traced
        if traced.was_ended:
            point = f"before change {end_at}, {traced.last}"
            home.power_on()
            if options.again:
                home.end_a_start()
        home.check()
    except Fault as error:
        fault = f"{scenario.name}, {options.how} {point}: {error} (see {home.path})"
    finally:
        home.close()
    if fault is None:
        shutil.rmtree(home.path)
    return traced if fault is None else home.traced, fault


def spread(count, points):
    """Numbers from 1 to count, evenly spread from a random one on; all of them where no number is wanted."""
    if not points or points >= count:
        return range(1, count + 1)
    step = count / points
    begin = random.random() * step
    return [int(begin + step * number) + 1 for number in range(points)]


def try_all(options, scenario):
    """Tries the moments of a scenario. Returns how many there were, and the faults."""
    tried, faults = 0, []
    # How many there are; that nothing is wrong where nothing is ended.
    whole, fault = one(options, scenario, None)
    wanted = spread(whole.changes, options.points) if fault is None else ()
    if fault:
        faults.append(fault)
        print(fault, file=sys.stderr, flush=True)
    for end_at in wanted:
        traced, fault = one(options, scenario, end_at)
        tried += traced.was_ended
        if fault:
            faults.append(fault)
            print(fault, file=sys.stderr, flush=True)
    print(f"{scenario.name}: {tried} points of {whole.changes}, {len(faults)} faults", flush=True)
    return tried, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = {scenario.name: scenario for scenario in SCENARIOS}
    parser.add_argument("how", choices=["kill", "powercut"])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"all of {', '.join(names)} unless named")
    parser.add_argument("--work", type=Path, required=True, help="folder on the disk to use")
    parser.add_argument("--points", type=int, help="of each scenario; all of them unless told")
    parser.add_argument("--journal", type=int, default=2, metavar="MIB", help="arrival journal of dcmdex; 0: none")
    parser.add_argument("--again", action="store_true", help="the start that follows is ended as well")
    parser.add_argument("--disks", type=int, choices=[1, 2], default=1, help="2: one for the index, one for the objects")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_intermixed_args()
    if unknown := [name for name in options.scenarios if name not in names]:
        parser.error(f"no such scenario: {', '.join(unknown)}")
    if not is_possible():
        print("nothing can be traced here: Linux on x86-64 or AArch64 is needed, and ptrace", file=sys.stderr)
        sys.exit(77)
    options.work.mkdir(parents=True, exist_ok=True)
    random.seed(options.seed)
    Dcmdex.journal_mib = options.journal
    points, faults = 0, []
    for name in options.scenarios or names:
        scenario = names[name]()
        if options.how in scenario.hows:
            tried, found = try_all(options, scenario)
            points, faults = points + tried, faults + found
    print(f"- dcmdex, {options.how}, journal of {options.journal} MiB{', again' * options.again}. Machine: {machine()}. Commit {commit()}.")
    print(f"all: {points} points, {len(faults)} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
