"""A peer in the standard library only: it associates, sends or asks, and tells what was answered.

Tests use it that cut the connection, or the node, off in the middle.
"""

import socket
import struct

EXPLICIT_LE = b"1.2.840.10008.1.2.1"
SECONDARY_CAPTURE = b"1.2.840.10008.5.1.4.1.1.7"
MAX_PDU = 16384


def _item(kind, body):
    return struct.pack(">BBH", kind, 0, len(body)) + body


def associate_rq(called, calling=b"RELIABLE", sop_class=SECONDARY_CAPTURE):
    context = struct.pack(">BBBB", 1, 0, 0, 0) + _item(0x30, sop_class) + _item(0x40, EXPLICIT_LE)
    user = _item(0x51, struct.pack(">I", MAX_PDU)) + _item(0x52, b"1.2.3")
    items = _item(0x10, b"1.2.840.10008.3.1.1.1") + _item(0x20, context) + _item(0x50, user)
    body = struct.pack(">HH", 1, 0) + called.ljust(16) + calling.ljust(16) + bytes(32) + items
    return struct.pack(">BBI", 1, 0, len(body)) + body


def _implicit(element, value):
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, element, len(value)) + value


def _explicit(group, element, vr, value):
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    if vr in (b"OW", b"OB"):
        return struct.pack("<HH2sHI", group, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def data_set(study, series, instance, pixels):
    """A secondary capture. UIDs as bytes."""
    return b"".join(
        [
            _explicit(0x0008, 0x0016, b"UI", SECONDARY_CAPTURE),
            _explicit(0x0008, 0x0018, b"UI", instance),
            _explicit(0x0008, 0x0060, b"CS", b"OT"),
            _explicit(0x0010, 0x0010, b"PN", b"Reliable^Test"),
            _explicit(0x0010, 0x0020, b"LO", b"R1"),
            _explicit(0x0020, 0x000D, b"UI", study),
            _explicit(0x0020, 0x000E, b"UI", series),
            _explicit(0x0020, 0x0013, b"IS", b"1"),
            _explicit(0x7FE0, 0x0010, b"OW", pixels),
        ]
    )


def _pdata(kind, data):
    out = []
    step = MAX_PDU - 6
    pieces = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
    for number, piece in enumerate(pieces):
        control = kind | (2 if number == len(pieces) - 1 else 0)
        out.append(struct.pack(">BBIIBB", 4, 0, len(piece) + 6, len(piece) + 2, 1, control) + piece)
    return b"".join(out)


def _request(kind, sop_class, message_id, data, more=b""):
    command = b"".join(
        [
            _implicit(0x0002, sop_class),
            _implicit(0x0100, struct.pack("<H", kind)),
            _implicit(0x0110, struct.pack("<H", message_id)),
            _implicit(0x0700, struct.pack("<H", 0)),
            _implicit(0x0800, struct.pack("<H", 1)),
            more,
        ]
    )
    command = _implicit(0x0000, struct.pack("<I", len(command))) + command
    return _pdata(1, command) + _pdata(0, data)


def store_rq(message_id, instance, data):
    return _request(0x0001, SECONDARY_CAPTURE, message_id, data, _implicit(0x1000, instance))


def sequence(group, element, item):
    """A sequence of one item, in the transfer syntax of the association."""
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item
    return struct.pack("<HH2sHI", group, element, b"SQ", 0, len(item)) + item


def key(group, element, vr, value=b""):
    """A key of an Identifier."""
    return _explicit(group, element, vr, value)


class Sender:
    """One association. Raises OSError when it ends before its time."""

    def __init__(self, port, called, sop_class=SECONDARY_CAPTURE):
        self.sop_class = sop_class
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(associate_rq(called, sop_class=sop_class))
        kind, _ = self._pdu()
        if kind != 2:
            raise ConnectionError(f"no association: PDU {kind}")

    def store(self, message_id, instance, data):
        """The status of the response."""
        self.socket.sendall(store_rq(message_id, instance, data))
        return next(self._statuses())

    def find(self, message_id, identifier):
        """The number of answers to a C-FIND-RQ."""
        self.socket.sendall(_request(0x0020, self.sop_class, message_id, identifier))
        answers = 0
        for status in self._statuses():
            if status not in (0xFF00, 0xFF01):
                break
            answers += 1
        if status != 0:
            raise ConnectionError(f"status {status:04X}")
        return answers

    def _statuses(self):
        """The status of each response. Data sets are passed over."""
        command = b""
        while True:
            kind, body = self._pdu()
            if kind != 4:
                raise ConnectionError(f"PDU {kind} instead of a response")
            while body:
                (length,) = struct.unpack_from(">I", body)
                control, piece = body[5], body[6 : 4 + length]
                body = body[4 + length :]
                if control & 1:
                    command += piece
                    if control & 2:
                        yield self._status(command)
                        command = b""

    @staticmethod
    def _status(command):
        while command:
            _, element, length = struct.unpack_from("<HHI", command)
            if element == 0x0900:
                return struct.unpack_from("<H", command, 8)[0]
            command = command[8 + length :]
        raise ConnectionError("a response without status")

    def _pdu(self):
        header = self._exactly(6)
        kind, _, length = struct.unpack(">BBI", header)
        return kind, self._exactly(length)

    def _exactly(self, count):
        parts = []
        while count:
            part = self.socket.recv(count)
            if not part:
                raise ConnectionError("closed")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def close(self):
        self.socket.close()
