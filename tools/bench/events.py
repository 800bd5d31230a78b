#!/usr/bin/env python3
"""What it costs C-STORE that events are recorded and delivered.

Usage: tools/bench/events.py [--count 30000] [--runs 5] [--size 16384] [--rate 0] [--directory DIR] [--program DCMDEX --storeload STORELOAD]

In turn, nodes start on empty directories and get the same objects over 16 associations: without events, with an event log that has each
instance, and with a receiver that takes each event over HTTP. The rates and the processor time of the node are compared run by run, since a
busy machine changes both. Then `dcmdex events --json` reads the log. The script fails if an instance is missing in the events.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from common import commit, fail, figures, machine, options_with, serve

LOG = "[event_log]\nenabled = true\ninstances = true\nquiet_seconds = 1\n"
RECEIVER = '[[events]]\nname = "bench"\npost = "http://127.0.0.1:{port}/"\nkinds = ["instance-stored", "study-complete"]\n'
KINDS = ("no events", "event log", "receiver")


class Hook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    taken = 0

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if event["kind"] == "instance-stored":
            type(self).taken += event["instances"]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def run(kind, options, place, port):
    place.mkdir()
    config = place / "dcmdex.toml"
    durability = f'[store]\ndurability = "{options.durability}"\n'
    config.write_text(durability + {"no events": "", "event log": LOG, "receiver": LOG + RECEIVER.format(port=port)}[kind])
    binary, storeload = options.program, options.storeload
    flags = ["--config", config, *(["--metadata-only"] if options.metadata_only else [])]
    Hook.taken = 0
    with (place / "log").open("wb") as log, serve(place / "index.db", place / "objects", log, *flags, binary=binary) as node:
        before = node.cpu_seconds()
        command = [storeload, "--to", node.address, "--called", "DCMDEX", "--associations", 16, "--count", options.count, "--size", options.size, "--rate", options.rate, "--json"]
        sent = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
        processor = node.cpu_seconds() - before
        got = figures(sent, options.count)
        late = time.monotonic()
        while kind == "receiver" and Hook.taken < options.count:
            if time.monotonic() - late > 120:
                fail(f"{Hook.taken} instances of {options.count} were told")
            time.sleep(0.05)
        late = time.monotonic() - late
    read = None
    if kind != "no events":
        begun = time.monotonic()
        lines = subprocess.run([binary, "events", "--json", "--index", place / "index.db"], capture_output=True, check=True).stdout
        read = time.monotonic() - begun
        told = sum(event["instances"] for event in map(json.loads, lines.splitlines()) if event["kind"] == "instance-stored")
        if told != options.count:
            fail(f"{told} instances in the events instead of {options.count}")
    return got["rate"], 1e6 * processor / options.count, late, read, got["p50"], got["p99"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=30_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", type=int, default=16_384)
    parser.add_argument("--rate", type=int, default=0, help="instances per second; 0: as fast as possible")
    parser.add_argument("--durability", choices=["full", "os"], default="full")
    parser.add_argument("--metadata-only", action="store_true")
    options = options_with(parser, "storeload")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kept = "metadata only" if options.metadata_only else f"objects of {options.size} bytes"
    print(f"# {machine()}, commit {commit()}, {options.count} instances, {kept}, durability {options.durability}, load {os.getloadavg()[0]:.1f}")
    results = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory(dir=options.directory) as place:
        for turn in range(options.runs):
            # Each kind is first, second and last equally often.
            for kind in KINDS[turn % 3 :] + KINDS[: turn % 3]:
                results[kind].append(run(kind, options, Path(place) / f"{turn} {kind}", server.server_address[1]))
    for kind, runs in results.items():
        against = [(rate / base[0], processor / base[1]) for (rate, processor, *_), base in zip(runs, results["no events"])]
        rate, processor = (statistics.median(values) for values in zip(*((run[0], run[1]) for run in runs)))
        ratio, more = (statistics.median(values) for values in zip(*against))
        text = f"{kind:<10} {rate:7.0f} instances/s ({ratio:.3f} of no events), {processor:6.1f} us CPU of the node for each ({more:.3f})"
        text += ", p50 {:.2f}, p99 {:.2f} ms".format(*(statistics.median(run[at] for run in runs) for at in (4, 5)))
        if kind == "receiver":
            text += f", all told {1000 * statistics.median(run[2] for run in runs):.0f} ms after the last"
        if kind != "no events":
            text += f", read in {statistics.median(run[3] for run in runs):.2f} s"
        print(text)


if __name__ == "__main__":
    main()
