"""A server of chat completions whose replies a test decides."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], "str | int | bytes | float"]


class Torn(bytes):
    """A reply of which only this first part comes: the server dies meanwhile."""


class Trickle(bytes):
    """A reply that comes byte by byte, with a pause before each."""

    pause_seconds = 0.05


class Chat:
    """What was asked, and how it is answered: with a text, a status, raw bytes, or silence in seconds."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.url = ""
        self.lock = threading.Lock()


@contextmanager
def serving(answer: Answer) -> Iterator[Chat]:
    """A server on this machine, for the time of the block."""
    chat = Chat(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with chat.lock:
                chat.requests.append(body)
                chat.keys.add(self.headers.get("Authorization", ""))
            said = chat.answer(body)
            if isinstance(said, float):
                time.sleep(said)
                self.close_connection = True
                return
            status, data = (
                (said, b'{"error": {"message": "as the test says"}}') if isinstance(said, int) else (200, b"")
            )
            if isinstance(said, bytes):
                data = said
            if isinstance(said, str):
                message = {"role": "assistant", "content": said.removesuffix("<cut>")}
                reason = "length" if said.endswith("<cut>") else "stop"
                data = json.dumps(
                    {
                        "id": "1",
                        "object": "chat.completion",
                        "created": 0,
                        "model": body["model"],
                        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
                        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
                    }
                ).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data) + isinstance(said, Torn)))
            if isinstance(said, int):
                self.send_header("Retry-After", "0")
            self.end_headers()
            if isinstance(said, Trickle):
                for byte in said:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(said.pause_seconds)
                return
            self.wfile.write(data)
            self.close_connection = isinstance(said, Torn)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            pass  # a client that has gone away

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        chat.url = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield chat
        finally:
            server.shutdown()
            thread.join()
