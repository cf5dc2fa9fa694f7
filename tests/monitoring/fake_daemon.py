"""An HTTP server that says what a test wants, or nothing, where a monitor expects a daemon."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STATUS = {
    "line": "micro",
    "profile": "tiny",
    "device": "cpu",
    "uptime_s": 60.0,
    "paused": False,
    "run": {"number": 4, "kind": "adapter", "state": "training", "created_at": "2026-11-21T18:00:00+00:00"},
    "training": {"phase": "train", "step": 37, "total": 120, "epoch": 0.3083, "loss": 2.3123, "smoothed_loss": 2.4}
    | {"lr": 1e-4, "eta_s": 83.2, "tokens_per_s": 9123.4, "eval_loss": 2.5},
    "curve": {"train": [[step, 4 - step / 30] for step in range(1, 38)], "eval": [], "start": None},
    "backlog": {"num_fresh": 30, "threshold": 100},
    "needed_rows": 100,
    "threshold_eta_s": 300.0,
    "current_version": 3,
    "versions": [{"number": 3, "bits_per_byte": 2.179, "created_at": "2026-11-21T16:00:00+00:00"}],
    "decisions": [{"verdict": "wait", "reason": "too_few_rows", "repeated": 7, "last_at": "2026-11-21T17:00:00+00:00"}],
    "gpus": [{"gpu": "0", "name": "NVIDIA GeForce RTX 5090", "up": 1, "utilization_ratio": 0.97}
             | {"memory_bytes": 32 << 30, "memory_used_bytes": 27 << 30, "temperature_celsius": 61}
             | {"power_watts": 310, "power_limit_watts": 575}],
}  # fmt: skip
DECISIONS = {"decisions": [{"verdict": "train", "reason": "threshold_reached", "repeated": 1, "inputs": {}}]}


class FakeDaemon:
    """Answers at /status and /v1/decisions with (status, body) of `answers`; bodies are bytes or become JSON.

    A status of 0 is silence, of -1 an answer that comes by drops. `asked` has path and headers of each request.
    """

    def __init__(self, port=0):
        self.answers = {"/status": (200, STATUS), "/v1/decisions": (200, DECISIONS)}
        self.asked = []
        self._over = threading.Event()
        daemon = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                daemon._answer(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _answer(self, handler):
        path = handler.path.partition("?")[0]
        self.asked.append((path, dict(handler.headers)))
        status, body = self.answers[path]
        handler.close_connection = True
        if status == 0:
            self._over.wait()
            return
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(200 if status == -1 else status)
        handler.send_header("Content-Length", str(len(content)))
        handler.send_header("Location", "/elsewhere")
        handler.end_headers()
        for drop in [content] if status != -1 else (content[at : at + 1] for at in range(len(content))):
            try:
                handler.wfile.write(drop)
            except OSError:  # the monitor has had enough
                return
            if status == -1 and self._over.wait(0.05):
                return

    def close(self):
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
