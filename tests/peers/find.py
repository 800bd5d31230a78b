"""C-FIND by pynetdicom: HOST PORT CALLED-AE-TITLE QUESTION, where the question is JSON: "class" (a SOP Class UID), "syntax" (a
transfer syntax), "extended" (the bytes of a SOP Class Extended Negotiation, as numbers) and "keys" (keyword, or tag and VR
as in "0019,1010 DS", to value; or a list of these, which are asked one after the other).

Prints what was agreed, as JSON, then a line of JSON for each response: its status, and keyword to value.
"""

import json
import sys

from pynetdicom import AE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from shared import before_request, data_set, name, shown

host, port, called, question = sys.argv[1:]
question = json.loads(question)
entity = AE(ae_title="PYNETDICOM")
entity.add_requested_context(question["class"], question["syntax"])
negotiation = []
if question["extended"]:
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid = question["class"]
    item.service_class_application_information = bytes(question["extended"])
    negotiation.append(item)
association = entity.associate(host, int(port), ae_title=called, ext_neg=negotiation)
if not association.is_established:
    sys.exit("no association")
agreed = association.acceptor.sop_class_extended.get(question["class"], b"")
print(json.dumps({"agreed": list(agreed)}))
for keys in question["keys"] if isinstance(question["keys"], list) else [question["keys"]]:
    before_request(association)
    for status, identifier in association.send_c_find(data_set(keys), question["class"]):
        response = {name(element): shown(element) for element in identifier or []}
        failure = {"offending": str(status.get("OffendingElement", "")), "comment": status.get("ErrorComment", "")}
        print(json.dumps({"status": f"{status.Status:04X}", "values": response, **failure}))
association.release()
