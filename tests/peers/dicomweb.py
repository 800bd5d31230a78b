"""QIDO-RS, WADO-RS and STOW-RS by dicomweb-client: URL FOLDER.

Stores all whole objects of the folder, searches for them, retrieves them, and prints what it saw as JSON.
"""

import json
import sys
from pathlib import Path

import pydicom

try:
    import requests
    from dicomweb_client.api import DICOMwebClient
except ImportError:
    print(json.dumps({"missing": True}))
    sys.exit()

url, folder = sys.argv[1:]
client = DICOMwebClient(url=url)
objects = {}
for path in sorted(Path(folder).rglob("*")):
    if path.is_dir() or path.parent.name == "odd":
        continue
    dataset = pydicom.dcmread(path, force=True)
    if not hasattr(dataset, "file_meta") or "TransferSyntaxUID" not in dataset.file_meta:
        # Without meta information there is no file that STOW-RS could send.
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        dataset.preamble = b"\0" * 128
    objects[dataset.SOPInstanceUID] = dataset

said = {"stored": 0, "frames": []}
# In two requests: one study, then all of it.
for batch in ([next(iter(objects.values()))], list(objects.values())):
    response = client.store_instances(datasets=batch)
    said["stored"] = len(response.ReferencedSOPSequence)

said["studies"] = len(client.search_for_studies())
said["pages"] = len({
    study["0020000D"]["Value"][0]
    for offset in range(0, 10, 2)
    for study in client.search_for_studies(limit=2, offset=offset)
})
said["mueller"] = len(client.search_for_studies(search_filters={"PatientName": "Müller*"}))

same = True
for uid, dataset in objects.items():
    metadata = client.retrieve_instance_metadata(dataset.StudyInstanceUID, dataset.SeriesInstanceUID, uid)
    same = same and metadata["00080018"]["Value"][0] == uid
links = {"followed": 0}
for uid, dataset in objects.items():
    metadata = client.retrieve_instance_metadata(dataset.StudyInstanceUID, dataset.SeriesInstanceUID, uid)
    pixels = metadata.get("7FE00010", {})
    if "BulkDataURI" in pixels and not dataset.file_meta.TransferSyntaxUID.is_compressed:
        if b"".join(client.iter_bulkdata(pixels["BulkDataURI"])):
            links["followed"] += 1
said.update(links)
series = {(dataset.StudyInstanceUID, dataset.SeriesInstanceUID) for dataset in objects.values()}
received = [dataset for study, one in series for dataset in client.retrieve_series(study, one)]
same = same and {dataset.SOPInstanceUID for dataset in received} == set(objects)
for dataset in received:
    stored = objects[dataset.SOPInstanceUID]
    same = same and str(dataset.PatientName) == str(stored.PatientName)
    if "PixelData" in stored and stored.file_meta.TransferSyntaxUID != pydicom.uid.ExplicitVRBigEndian:
        same = same and dataset.PixelData == stored.PixelData
said["same"] = same

for wanted in (1, 3, 2):
    for dataset in objects.values():
        if int(dataset.get("NumberOfFrames", 1)) == wanted and "PixelData" in dataset:
            frames = client.retrieve_instance_frames(
                dataset.StudyInstanceUID,
                dataset.SeriesInstanceUID,
                dataset.SOPInstanceUID,
                list(range(1, wanted + 1)),
                media_types=(("application/octet-stream", "*"),),
            )
            said["frames"].append(len(frames))
            break

try:
    client.retrieve_instance("1.2.3", "1.2.3.4", "1.2.3.4.5")
except requests.HTTPError as error:
    said["refused"] = error.response.status_code
print(json.dumps(said))
