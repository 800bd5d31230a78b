"""Paths, machine, build and servers that the benchmark scripts share."""

import argparse
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
RELEASE = TARGET / "release"
PYTHON = os.environ.get("DCMDEX_PEERS_PYTHON", str(TARGET / "peers/venv/bin/python"))


def fail(message):
    sys.exit(f"error: {message}")


def build(*generators):
    """Builds dcmdex and the named load generators of tools/bench into RELEASE."""
    command = ["cargo", "build", "--release", "--locked", "--package", "dcmdex", "--package", "dcmdex-bench"]
    for name in ["dcmdex", *generators]:
        command += ["--bin", name]
    subprocess.run(command, cwd=ROOT, check=True)


def options_with(parser, generator):
    """Reads the options, with those for a folder, for dcmdex, and for a load generator. Builds the two where dcmdex is not named."""
    for name in ("directory", "program", generator):
        parser.add_argument(f"--{name}", type=Path)
    options = parser.parse_args()
    if not options.program:
        build(generator)
    options.program = options.program or RELEASE / "dcmdex"
    setattr(options, generator, getattr(options, generator) or RELEASE / generator)
    return options


def generate(options, index):
    """Makes an index of so many instances, and prints what the run is about."""
    subprocess.run([options.indexload, index, str(options.instances)], check=True, stdout=subprocess.DEVNULL)
    print(f"# {machine()}, commit {commit()}, {options.instances} instances, load {os.getloadavg()[0]:.1f}", flush=True)


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}"


def commit():
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Ended(SystemExit):
    """A server ended before it listened: its port may have been taken since it was free."""


class Listener:
    """A server process that listens on a port of 127.0.0.1; ends with the `with` block."""

    # What each command line begins with.
    prefix = []

    def __init__(self, command, port, log, cpus=None):
        """`cpus`: the processors that it may use, as taskset takes them; all of them unless told."""
        self.port, self.log = port, log
        command = self.prefix + (["taskset", "-c", cpus] if cpus else []) + [str(part) for part in command]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while True:
            if self.process.poll() is not None:
                raise Ended(f"error: {command[0]} ended with {self.process.returncode}, see {log.name}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def peak_rss_mb(self):
        return self._status_mb("VmHWM:")

    def rss_mb(self):
        return self._status_mb("VmRSS:")

    def _status_mb(self, field):
        with open(f"/proc/{self.process.pid}/status") as status:
            line = next(line for line in status if line.startswith(field))
        return int(line.split()[1]) / 1024

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def serve(index, storage, log, *flags, cpus=None, binary=RELEASE / "dcmdex"):
    """A dcmdex node on `index`; `cpus` as for a Listener."""
    port = free_port()
    command = [binary, "serve", "--index", index, "--storage", storage, "--ae-title", "DCMDEX"]
    return Listener([*command, "--bind", "127.0.0.1", "--port", port, *flags], port, log, cpus)


def figures(said, count, errors=""):
    """The figures that `storeload --json` printed. Ends the benchmark unless all objects were stored."""
    got = json.loads(said) if said.startswith("{") else {}
    if got.get("success") != count:
        fail(f"storeload said: {said} {errors[-500:]}")
    return got


def storing_beside(doc, archive_help, count, associations):
    """The options of a benchmark that stores objects beside something else, and in every other run without it."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder on the disk to measure")
    parser.add_argument("--archive", type=Path, required=True, help=archive_help)
    parser.add_argument("--count", type=int, default=count, help="objects per run")
    parser.add_argument("--associations", type=int, default=associations)
    parser.add_argument("--size", type=int, default=16 * 1024, help="bytes of an object")
    parser.add_argument("--rate", type=int, default=0, help="objects per second; 0: as fast as possible")
    parser.add_argument("--runs", type=int, default=3)
    return parser


def run_beside(options, name, once, prepare=lambda scratch: None):
    """Runs `once(options, folder, is_beside, prepared)` with something beside it and without, in turn. Returns the rows."""
    build("storeload")
    options.work.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{name}-bench-", dir=options.work))
    rows = []
    try:
        prepared = prepare(scratch)
        for number in range(options.runs):
            for is_beside in (True, False):
                print(f"run {number + 1}, {'beside something' if is_beside else 'alone'}", file=sys.stderr)
                folder = scratch / f"{number}-{is_beside}"
                folder.mkdir()
                rows.append(once(options, folder, is_beside, prepared))
                shutil.rmtree(folder)
    finally:
        shutil.rmtree(scratch)
    print(f"- Machine: {machine()}; all on the same cores.")
    print(f"- Commit {commit()}; {options.count} objects of {options.size:,} bytes, {options.associations} associations.\n")
    return rows


def start_storing(options, address):
    """Starts `storeload` with these options."""
    command = [RELEASE / "storeload", "--to", address, "--associations", options.associations]
    command += ["--count", options.count, "--size", options.size, "--rate", options.rate, "--json"]
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stored(process, options):
    """What `storeload` measured. Ends the benchmark unless all objects were stored."""
    said, errors = process.communicate()
    return figures(said, options.count, errors)
