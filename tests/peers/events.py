"""A receiver of events: SECRET CERTIFICATE KEY. Prints its port, and then a line for each request.

The line is JSON: whether the signature is right by the hmac module, the headers, and the body.
"""

import base64
import hashlib
import hmac
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

secret, certificate, key = sys.argv[1:4]
KEY = base64.b64decode(secret.removeprefix("whsec_"))


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
        expected = "v1," + base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        seen = {
            "signed": hmac.compare_digest(expected, self.headers["webhook-signature"]),
            "id": self.headers["webhook-id"],
            "type": self.headers["Content-Type"],
            "path": self.path,
            "client": self.client_address[1],
            "body": json.loads(body),
        }
        self.send_response(204)
        self.end_headers()
        print(json.dumps(seen), flush=True)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Receiver)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
