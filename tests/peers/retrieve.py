"""C-GET or C-MOVE by pynetdicom: HOST PORT CALLED-AE-TITLE QUESTION, where the question is JSON: "class" (a SOP Class UID), "keys"
(keyword to value), and for C-GET "storage" (pairs of SOP Class and transfer syntax), for C-MOVE "destination" (an AE title: this
script listens for it on the port "listen") and "accept" (the transfer syntaxes that it accepts). "files" names the stored files of
objects, by SOP Instance UID.

Prints a line of JSON for each response, and one for each object that arrived: the SHA-256 of its data set, and for stored files how far
its samples are from those that pydicom decompresses ("apart", null if it cannot).
"""

import hashlib
import json
import sys

import numpy
import pydicom
from pydicom.dataset import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_role, evt

host, port, called, question = sys.argv[1:]
question = json.loads(question)


# Printed at the end: objects arrive on another thread than responses.
lines = []


def apart(data_set, path):
    stored = pydicom.dcmread(path)
    try:
        stored.decompress(as_rgb=False)
    except (RuntimeError, ValueError, NotImplementedError):
        return None
    samples = [numpy.asarray(each.pixel_array, dtype=numpy.int64) for each in (stored, data_set)]
    return int(abs(samples[0] - samples[1]).max()) if samples[0].shape == samples[1].shape else "other shape"


def arrived(event):
    # As it came, not as pydicom would write it.
    data_set = event.request.DataSet.getvalue()
    context = event.context
    lines.append(
        {
            "instance": str(event.request.AffectedSOPInstanceUID),
            "syntax": str(context.transfer_syntax),
            "sha256": hashlib.sha256(data_set).hexdigest(),
            "originator": event.request.MoveOriginatorApplicationEntityTitle,
        }
    )
    path = question.get("files", {}).get(lines[-1]["instance"])
    if path:
        received = event.dataset
        received.file_meta = event.file_meta
        lines[-1]["apart"] = apart(received, path)
    return 0x0000


def told(responses):
    for status, identifier in responses:
        line = {"status": f"{status.Status:04X}" if "Status" in status else "none"}
        for word in ("Remaining", "Completed", "Failed", "Warning"):
            line[word.lower()] = status.get(f"NumberOf{word}Suboperations")
        failed = identifier.get("FailedSOPInstanceUIDList", []) if identifier else []
        line["failed_list"] = [failed] if isinstance(failed, str) else list(failed)
        lines.append(line)


keys = Dataset()
for keyword, value in question["keys"].items():
    setattr(keys, keyword, value)
handlers = [(evt.EVT_C_STORE, arrived)]
entity = AE(ae_title="PYNETDICOM")
entity.maximum_pdu_size = 0
entity.add_requested_context(question["class"])
if "destination" in question:
    receiver = AE(ae_title=question["destination"])
    for context in AllStoragePresentationContexts:
        receiver.add_supported_context(context.abstract_syntax, question.get("accept") or ALL_TRANSFER_SYNTAXES)
    server = receiver.start_server(("127.0.0.1", question["listen"]), block=False, evt_handlers=handlers)
    association = entity.associate(host, int(port), ae_title=called)
    if not association.is_established:
        sys.exit("no association")
    told(association.send_c_move(keys, question["destination"], question["class"]))
    association.release()
    server.shutdown()
else:
    roles = []
    for sop_class, syntaxes in question["storage"]:
        entity.add_requested_context(sop_class, syntaxes)
        roles.append(build_role(sop_class, scp_role=True))
    association = entity.associate(host, int(port), ae_title=called, ext_neg=roles, evt_handlers=handlers)
    if not association.is_established:
        sys.exit("no association")
    told(association.send_c_get(keys, question["class"]))
    association.release()
for line in lines:
    print(json.dumps(line))
