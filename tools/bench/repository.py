#!/usr/bin/env python3
"""Repository Query (PS3.4 C.6.4) by pynetdicom over a generated index: in pages, cut off twice, and each record once.

Usage: tools/bench/repository.py [--instances 1600000] [--page 10000] [--directory DIR] [--program DCMDEX --indexload INDEXLOAD]

Run it with the Python that scripts/peers installs. The second and the fifth page are cut off in their middle by A-ABORT. The next question goes
on after the last record key. The script reads the two attributes that it needs of the Identifiers itself: pydicom takes longer for an
Identifier than the node takes for the page. It fails if a record comes twice or not at all.
"""

import argparse
import tempfile
import time
from pathlib import Path

import pynetdicom._config
import pynetdicom.association
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import RepositoryQuery

from common import fail, generate, options_with, serve

CUT_PAGES = (2, 5)


def value(identifier, tag):
    """A value of an Identifier in Implicit VR Little Endian."""
    at = identifier.index(tag) + 4
    length = int.from_bytes(identifier[at : at + 4], "little")
    return identifier[at + 4 : at + 4 + length].rstrip(b"\0 ")


def question(page, prior):
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.SOPInstanceUID = ""
    identifier.RecordKey = b""
    identifier.FileAccessSequence = []
    identifier.MaximumNumberOfRecords = page
    if prior:
        identifier.PriorRecordKey = prior
    return identifier


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=1_600_000)
    parser.add_argument("--page", type=int, default=10_000)
    arguments = options_with(parser, "indexload")
    pynetdicom._config.LOG_RESPONSE_IDENTIFIERS = False
    pynetdicom.association.decode = lambda stream, *_: stream.getvalue()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as place:
        place = Path(place)
        index = place / "index.db"
        generate(arguments, index)
        with (place / "log").open("wb") as log, serve(index, place / "objects", log, binary=arguments.program) as node:
            begun = time.monotonic()
            seen, twice, pages, slowest = set(), 0, 0, 0
            prior, is_last = None, False
            while not is_last:
                entity = AE(ae_title="PYNETDICOM")
                entity.add_requested_context(RepositoryQuery, "1.2.840.10008.1.2")
                association = entity.associate("127.0.0.1", node.port, ae_title="DCMDEX")
                if not association.is_established:
                    fail("no association")
                pages, here, asked = pages + 1, 0, time.monotonic()
                for status, identifier in association.send_c_find(question(arguments.page, prior), RepositoryQuery):
                    if identifier is None:
                        is_last = status.Status == 0
                        if status.Status not in (0, 0xB001):
                            fail(f"page {pages} ended with {status}")
                        break
                    if here == 0:
                        slowest = max(slowest, time.monotonic() - asked)
                    here += 1
                    uid, prior = value(identifier, b"\x08\0\x18\0"), value(identifier, b"\x08\0\x1b\x04")
                    twice += uid in seen
                    seen.add(uid)
                    if pages in CUT_PAGES and here == arguments.page // 2:
                        break
                # pynetdicom 3.0 waits for a further response after B001.
                association.abort()
                if pages % 20 == 0:
                    print(f"{pages} pages, {len(seen)} records, {time.monotonic() - begun:.0f} s", flush=True)
            seconds = time.monotonic() - begun
            if len(seen) != arguments.instances or twice:
                fail(f"{len(seen)} records instead of {arguments.instances}, {twice} of them twice")
            print(
                f"{len(seen)} records in {pages} pages, each once, cut off in pages {CUT_PAGES}: {seconds:.0f} s, "
                f"{len(seen) / seconds:.0f} records/s; the node took {node.cpu_seconds():.1f} s CPU and {node.peak_rss_mb():.0f} MB; "
                f"the first record of a page came after {1000 * slowest:.0f} ms at most"
            )


if __name__ == "__main__":
    main()
