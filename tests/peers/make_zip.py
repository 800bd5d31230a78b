"""Packs a folder with Python's zipfile: stored, deflated, and with zip64 fields."""

import sys
import zipfile
from pathlib import Path

out, source = map(Path, sys.argv[1:])
files = sorted(path for path in source.rglob("*") if path.is_file())
for name, method, zip64 in [
    ("stored.zip", zipfile.ZIP_STORED, False),
    ("deflated.zip", zipfile.ZIP_DEFLATED, False),
    ("zip64.zip", zipfile.ZIP_DEFLATED, True),
]:
    with zipfile.ZipFile(out / name, "w", method) as archive:
        for path in files:
            info = zipfile.ZipInfo.from_file(path, path.relative_to(source))
            info.compress_type = method
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(path.read_bytes())
