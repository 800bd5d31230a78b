"""C-STORE by pynetdicom: HOST PORT CALLED-AE-TITLE FILE... Prints the status of each file."""

import sys

from pydicom import dcmread
from pynetdicom import AE

from shared import before_request

host, port, called = sys.argv[1:4]
data_sets = [dcmread(name) for name in sys.argv[4:]]
entity = AE(ae_title="PYNETDICOM")
for data_set in data_sets:
    entity.add_requested_context(data_set.SOPClassUID, data_set.file_meta.TransferSyntaxUID)
association = entity.associate(host, int(port), ae_title=called)
if not association.is_established:
    sys.exit("no association")
for data_set in data_sets:
    before_request(association)
    print(f"{association.send_c_store(data_set).Status:04X}")
association.release()
