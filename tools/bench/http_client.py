"""An HTTP/1.1 client that adds little to what it measures: one connection, and no copy of what it throws away."""

import socket

BLOCK = 1 << 20


class Http:
    """One connection that stays open, unless the server closes it after a response: then the next one is opened."""

    def __init__(self, port, source=None):
        self.port, self.source, self.buffer = port, source, bytearray(BLOCK)
        self._connect()

    def _connect(self):
        self.socket = socket.create_connection(("127.0.0.1", self.port), source_address=self.source and (self.source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_over = False

    def close(self):
        self.socket.close()

    def send(self, target, headers=(), method="GET", body=None):
        if self.is_over:
            self.socket.close()
            self._connect()
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers)]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        if body is not None:
            self.socket.sendall(body)

    def get(self, target, headers=(), method="GET", body=None):
        """Status, headers and body."""
        self.send(target, headers, method, body)
        pieces = []
        status, known = self.receive(lambda piece: pieces.append(bytes(piece)))
        return status, known, b"".join(pieces)

    def drain(self, target, headers=()):
        """Status, and how many bytes the body has, without keeping them."""
        self.send(target, headers)
        count = 0

        def take(piece):
            nonlocal count
            count += len(piece)

        status, _ = self.receive(take)
        return status, count

    def receive(self, take):
        rest = bytearray()
        while (end := rest.find(b"\r\n\r\n")) < 0:
            rest += self._more()
        status_line, *lines = bytes(rest[:end]).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        rest, status = rest[end + 4 :], int(status_line.split(" ")[1])
        self.is_over = headers.get("connection", "").lower() == "close"
        if headers.get("transfer-encoding") == "chunked":
            self._chunks(rest, take)
        elif status not in (204, 304) and "content-length" not in headers:
            self._until_close(rest, take)
        elif status not in (204, 304):
            self._run(rest, int(headers["content-length"]), take)
        return status, headers

    def _more(self):
        count = self.socket.recv_into(self.buffer)
        if count == 0:
            raise ConnectionError("the connection was closed in the middle of a response")
        return memoryview(self.buffer)[:count]

    def _run(self, rest, length, take):
        """A run of bytes, of which `rest` has come. Returns what came behind it."""
        used = rest[:length]
        if used:
            take(used)
        left = length - len(used)
        while left:
            piece = self._more()
            take(piece[:left])
            if len(piece) > left:
                return bytearray(piece[left:])
            left -= len(piece)
        return rest[length:]

    def _until_close(self, rest, take):
        self.is_over = True
        if rest:
            take(rest)
        while count := self.socket.recv_into(self.buffer):
            take(memoryview(self.buffer)[:count])

    def _chunks(self, rest, take):
        while True:
            while (end := rest.find(b"\r\n")) < 0:
                rest += self._more()
            length, rest = int(rest[:end], 16), rest[end + 2 :]
            rest = self._run(rest, length, take)
            while len(rest) < 2:
                rest += self._more()
            rest = rest[2:]
            if length == 0:
                return
