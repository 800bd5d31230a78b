"""Writes the objects that the tests of the page look at: FOLDER.

A stack of slices, an object of several frames, one that cannot be rendered, a report, and objects and
files whose every value is markup.
"""

import sys
from pathlib import Path

import pydicom
from pydicom import config
from pydicom.dataset import Dataset, FileMetaDataset

# The values break the rules of their VR on purpose.
config.settings.writing_validation_mode = config.IGNORE
config.settings.reading_validation_mode = config.IGNORE

EXPLICIT = "1.2.840.10008.1.2.1"
# MPEG-4: no picture is made of a film.
FILM = "1.2.840.10008.1.2.4.102"
CT, SECONDARY_8, SECONDARY, REPORT = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.88.11",
)
SIDE = 64
folder = Path(sys.argv[1])


def instance(study, series, number, sop_class, modality, syntax=EXPLICIT):
    """An object without pixels."""
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID = sop_class
    data.SOPInstanceUID = f"{study}.{series}.{number}"
    data.StudyInstanceUID = study
    data.SeriesInstanceUID = f"{study}.{series}"
    data.StudyDate, data.StudyTime, data.Modality = "20240131", "101500", modality
    data.PatientName, data.PatientID = "Müller^Änne", "P-1"
    data.AccessionNumber, data.StudyDescription = "A-1", "Chest"
    data.SeriesNumber, data.InstanceNumber = series, number
    data.SeriesDescription = f"series {series}"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    return data


def pixels(data, frames, bits):
    """Gives an object pixels. Each frame is a list of SIDE * SIDE values."""
    data.Rows = data.Columns = SIDE
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, 12 if bits == 16 else 8, 11 if bits == 16 else 7
    if len(frames) > 1:
        data.NumberOfFrames = len(frames)
    values = [value for frame in frames for value in frame]
    data.PixelData = b"".join(value.to_bytes(bits // 8, "little") for value in values)
    data["PixelData"].VR = "OW" if bits == 16 else "OB"
    return data


def write(name, data):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)


# Slices that get brighter from one to the next, with the window 0 to 1,000: 100, 150, … on average.
for number in range(1, 13):
    data = instance("1.2.3", 1, number, CT, "CT")
    data.WindowCenter, data.WindowWidth = 500, 1000
    half = SIDE * SIDE // 2
    level = 50 + 50 * number
    write(f"stack/{number}.dcm", pixels(data, [[level - 40] * half + [level + 40] * half], 16))

# Frames of 30, 90, 150 and 210.
data = instance("1.2.3", 2, 1, SECONDARY_8, "OT")
data.WindowCenter, data.WindowWidth = 128, 256
write("frames.dcm", pixels(data, [[level] * SIDE * SIDE for level in (30, 90, 150, 210)], 8))

data = instance("1.2.3", 3, 1, SECONDARY, "XC", FILM)
pixels(data, [[0] * SIDE * SIDE], 8)
data.PixelData = pydicom.encaps.encapsulate([b"no film either"])
write("film.dcm", data)

write("report.dcm", instance("1.2.3", 4, 1, REPORT, "SR"))

# More studies than the search finds in one of them.
for number, name in enumerate(["Smith^John", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Kowalski^Jan"], start=1):
    data = instance(f"1.2.4.{number}", 1, 1, CT, "MR")
    data.PatientName, data.PatientID, data.AccessionNumber = name, f"Q-{number}", f"B-{number}"
    data.StudyDate = f"2023010{number}"
    write(f"others/{number}.dcm", data)

# Markup and script in every value that a page shows.
EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    '"><svg onload=alert(3)>',
    "'-alert(4)-'",
    "javascript:alert(5)",
    "{{7*7}}</title><script>alert(6)</script>",
]
for number, evil in enumerate(EVIL, start=1):
    data = instance(f"1.2.6.{number}", 1, 1, CT, "CT")
    for keyword in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate", "StudyTime",
        "StudyDescription", "ReferringPhysicianName", "Modality", "SeriesDescription", "BodyPartExamined",
    ):  # fmt: skip
        setattr(data, keyword, evil)
    write(f"evil/{number}.dcm", pixels(data, [[100] * SIDE * SIDE], 16))
    # The same instance with other content, and the study of another patient: conflicts.
    data.PatientID = f"{evil}!"
    data.StudyDescription = f"{evil}!"
    write(f"evil/again-{number}.dcm", data)
    # UIDs that are none.
    data.StudyInstanceUID = f"1.2.7.{number}{evil}"[:64]
    data.SOPInstanceUID = f"1.2.7.1.{number}{evil}"[:64]
    data.SeriesInstanceUID = f"1.2.7.2.{number}{evil}"[:64]
    write(f"evil/uid-{number}.dcm", data)
    # A file that cannot be read, with such a name.
    name = evil.replace("/", "\\")
    (folder / "evil" / f"{name}.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL\x04\0\x10")
