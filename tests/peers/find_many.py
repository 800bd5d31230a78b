"""C-FIND by pynetdicom, many questions: HOST PORT CALLED-AE-TITLE QUESTIONS, where the questions are a JSON list of objects with
"class" (a SOP Class UID) and "keys" (keyword to value; a list of objects is a sequence).

Prints a line of JSON for each question: the final status, and the answers, each as keyword to value.
"""

import json
import sys

from pynetdicom import AE

from shared import before_request, data_set, shown

host, port, called, questions = sys.argv[1:]
questions = json.loads(questions)
entity = AE(ae_title="PYNETDICOM")
for sop_class in sorted({question["class"] for question in questions}):
    entity.add_requested_context(sop_class, "1.2.840.10008.1.2")
association = entity.associate(host, int(port), ae_title=called)
if not association.is_established:
    sys.exit("no association")
accepted = {context.abstract_syntax for context in association.accepted_contexts}
for question in questions:
    answers = []
    if question["class"] not in accepted:
        print(json.dumps({"status": "no context", "answers": []}), flush=True)
        continue
    before_request(association)
    final = None
    for status, identifier in association.send_c_find(data_set(question["keys"]), question["class"]):
        final = f"{status.Status:04X}" if "Status" in status else "none"
        if identifier is not None:
            answers.append({element.keyword: shown(element) for element in identifier if element.keyword})
    print(json.dumps({"status": final, "answers": answers}), flush=True)
association.release()
