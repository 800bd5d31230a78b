"""Performed procedure steps by pynetdicom: HOST PORT CALLED-AE-TITLE STEPS, where the steps are JSON: a list of ["create" or
"set", SOP Instance UID, attributes].

Prints a line of JSON for each: its status, and what the response says of it.
"""

import json
import sys

from pynetdicom import AE
from pynetdicom.sop_class import ModalityPerformedProcedureStep

from shared import before_request, data_set

host, port, called, steps = sys.argv[1:]
entity = AE(ae_title="PYNETDICOM")
entity.add_requested_context(ModalityPerformedProcedureStep)
association = entity.associate(host, int(port), ae_title=called)
if not association.is_established:
    sys.exit("no association")
send = {"create": association.send_n_create, "set": association.send_n_set}
for verb, uid, attributes in json.loads(steps):
    before_request(association)
    status, _ = send[verb](data_set(attributes), ModalityPerformedProcedureStep, uid)
    print(json.dumps({"status": f"{status.Status:04X}", "comment": status.get("ErrorComment", "")}))
association.release()
