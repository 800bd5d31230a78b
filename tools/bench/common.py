"""Paths, machine, build and servers that the benchmark scripts share."""

import os
import platform
import socket
import subprocess
import sys
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
