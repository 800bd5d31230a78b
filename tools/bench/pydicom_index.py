"""The obvious index: pydicom reads every file under a folder, sqlite3 keeps a row for each.

    python tools/bench/pydicom_index.py FOLDER INDEX

tools/bench/scan.py compares dcmdex with it.
"""

import os
import sqlite3
import sys

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

KEYWORDS = [
    "PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "AccessionNumber", "StudyDescription",
    "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "SOPInstanceUID", "InstanceNumber",
]  # fmt: skip


def rows(folder):
    for directory, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(directory, name)
            try:
                ds = dcmread(path, stop_before_pixels=True, specific_tags=KEYWORDS)
            except InvalidDicomError:
                continue
            yield path, *(str(ds.get(keyword, "")) for keyword in KEYWORDS)


def main():
    folder, index = sys.argv[1:]
    db = sqlite3.connect(index)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"CREATE TABLE instances (path, {', '.join(KEYWORDS)}, UNIQUE (SOPInstanceUID))")
    marks = ", ".join("?" * (len(KEYWORDS) + 1))
    with db:
        db.executemany(f"INSERT INTO instances VALUES ({marks})", rows(folder))
    print(db.execute("SELECT count(*) FROM instances").fetchone()[0], "instances")


if __name__ == "__main__":
    main()
