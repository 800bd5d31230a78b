"""C-ECHO by pynetdicom: HOST PORT CALLED-AE-TITLE. Prints the status."""

import sys

from pynetdicom import AE

host, port, called = sys.argv[1:]
entity = AE(ae_title="PYNETDICOM")
entity.add_requested_context("1.2.840.10008.1.1")
association = entity.associate(host, int(port), ae_title=called)
if not association.is_established:
    sys.exit("no association")
print(f"{association.send_c_echo().Status:04X}")
association.release()
