"""mllp_send of the hl7 package, with its own options: --port PORT --file FILE [--loose] HOST. Prints the acknowledgments."""

from hl7.client import mllp_send

mllp_send()
