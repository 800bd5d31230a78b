"""Storage Commitment by pynetdicom: HOST PORT CALLED-AE-TITLE LISTEN-PORT WHERE CLASS=INSTANCE... WHERE is "same" (wait for the
report on the association) or "new" (release it, and listen as PYNETDICOM on LISTEN-PORT). Prints the status of the
N-ACTION, and the report as JSON.
"""

import json
import os
import sys
import threading

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt

COMMITMENT = "1.2.840.10008.1.20.1"
host, port, called, listen, where = sys.argv[1:6]
reported = threading.Event()
reports = []


def on_report(event):
    information = event.event_information
    references = lambda keyword: [
        [str(item.ReferencedSOPInstanceUID), f"{item.get('FailureReason', 0):04X}"] for item in information.get(keyword, [])
    ]
    reports.append(
        {
            "event": event.event_type,
            "transaction": str(information.TransactionUID),
            "committed": references("ReferencedSOPSequence"),
            "failed": references("FailedSOPSequence"),
        }
    )
    reported.set()
    return 0x0000, None


handlers = [(evt.EVT_N_EVENT_REPORT, on_report)]
entity = AE(ae_title="PYNETDICOM")
entity.add_requested_context(COMMITMENT)
server = None
if where == "new":
    entity.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)
    server = entity.start_server(("127.0.0.1", int(listen)), block=False, evt_handlers=handlers)
association = entity.associate(host, int(port), ae_title=called, evt_handlers=handlers)
if not association.is_established:
    sys.exit("no association")
request = Dataset()
request.TransactionUID = "1.2.3.4.5.6"
request.ReferencedSOPSequence = []
for reference in sys.argv[6:]:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.split("=")
    request.ReferencedSOPSequence.append(item)
status, _ = association.send_n_action(request, 1, COMMITMENT, "1.2.840.10008.1.20.1.1")
print(f"{status.Status:04X}", flush=True)
if where == "new":
    # Where the report comes in the same moment, release() of pynetdicom 3.0 waits for ever: its
    # reactor is paused already and does not say so. The report is there then.
    threading.Thread(target=association.release, daemon=True).start()
if not reported.wait(60):
    print("no report", file=sys.stderr, flush=True)
    os._exit(1)
print(json.dumps(reports[0]))
if where == "same":
    association.release()
else:
    server.shutdown()
# A thread of an association that was not released would keep the interpreter.
sys.stdout.flush()
os._exit(0)
