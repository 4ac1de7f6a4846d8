"""An HTTP proxy that fails as networks do: python flaky_proxy.py <target port>

Prints its own port. Of the calls that carry events, the 2nd is refused with 503 and Retry-After, and
the 4th reaches the target but its answer is lost; then the count begins again. At the end (stdin
closes) it says how often it did what.
"""

import http.client
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TARGET = int(sys.argv[1])
lock = threading.Lock()
counts = {"passed": 0, "refused": 0, "lost": 0}
calls = 0


class Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def fate(self):
        global calls
        with lock:
            calls += 1
            fate = {2: "refused", 4: "lost"}.get(calls % 5, "passed")
            counts[fate] += 1
            return fate

    def handle_call(self):
        body = self.body()
        fate = self.fate()
        if fate == "refused":
            answer = b'{"code":"overloaded","message":"try later","detail":""}'
            self.send_response(503)
            self.send_header("Retry-After", "1")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            return
        target = http.client.HTTPConnection("127.0.0.1", TARGET, timeout=30)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "transfer-encoding")}
        target.request(self.command, self.path, body=body, headers=headers)
        response = target.getresponse()
        answer = response.read()
        if fate == "lost":
            self.close_connection = True
            return
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            whole = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    do_GET = do_POST = do_OPTIONS = handle_call

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
sys.stdin.read()
print(counts, file=sys.stderr, flush=True)
