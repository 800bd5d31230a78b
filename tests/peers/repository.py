"""Repository Query by pynetdicom: HOST PORT CALLED-AE-TITLE LEVEL MAXIMUM CUT-AFTER.

Asks in pages, and goes on after the last record key. Each of the first two associations is cut off after CUT-AFTER answers. MAXIMUM is the
number of records that a page may have, or 0. Prints a line of JSON: the status of each page, and for each answer the unique key, the record key
and the items of File Access Sequence.
"""

import json
import sys

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import RepositoryQuery

host, port, called, level, maximum, cut_after = sys.argv[1:]
unique = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}[level]
answers, statuses, cuts, prior = [], [], 0, None


def question(prior):
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    setattr(identifier, unique, "")
    identifier.PatientID = ""
    identifier.RecordKey = b""
    if prior:
        identifier.PriorRecordKey = prior
    if level == "IMAGE":
        identifier.FileAccessSequence = []
    if int(maximum):
        identifier.MaximumNumberOfRecords = int(maximum)
    return identifier


while True:
    entity = AE(ae_title="PYNETDICOM")
    entity.add_requested_context(RepositoryQuery)
    association = entity.associate(host, int(port), ae_title=called)
    if not association.is_established:
        sys.exit("no association")
    final, here = None, 0
    for status, identifier in association.send_c_find(question(prior), RepositoryQuery):
        final = f"{status.Status:04X}" if "Status" in status else "none"
        if final == "B001":
            # pynetdicom 3.0 waits for one more response after this last one.
            association.abort()
            break
        if identifier is None:
            continue
        here += 1
        prior = identifier.RecordKey
        files = [{element.keyword: str(element.value) for element in item} for item in identifier.get("FileAccessSequence", [])]
        answers.append({"uid": identifier[unique].value, "key": prior.decode().strip(), "files": files})
        if cuts < 2 and here == int(cut_after):
            cuts += 1
            association.abort()
            break
    else:
        statuses.append(final)
        association.release()
        break
    statuses.append(final if final == "B001" else "cut")

wrong = Dataset()
entity = AE(ae_title="PYNETDICOM")
entity.add_requested_context(RepositoryQuery)
association = entity.associate(host, int(port), ae_title=called)
invalid = [f"{status.Status:04X}" for status, _ in association.send_c_find(question(b"nonsense"), RepositoryQuery)]
association.release()
print(json.dumps({"statuses": statuses, "answers": answers, "invalid": invalid}))
