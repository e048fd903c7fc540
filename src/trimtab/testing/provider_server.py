"""A provider of language models on this machine, which answers what a test wants and fails in every way it wants.

For tests of whatever asks a language model: no key, no network, no model. It speaks the wire formats of OpenAI (and so
of vLLM, Ollama, llama.cpp and `transformers serve`), Anthropic and Google, told apart by the path that is asked.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Final, Self

from trimtab.testing.provider_wire import HUGE_BYTES, STATUS, Misbehaviour, Wire, bad_body, reply_body, tool_of, wire_of

UNRESOLVABLE_URL: Final = "http://provider.invalid/v1"
"""A URL whose host no name server knows."""

Reply = str | Misbehaviour


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """What a client sent.

    Args:
        method: ``GET`` or ``POST``.
        path: Path and query.
        headers: By name, in lower case.
        body: The parsed JSON; None for a GET.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


class ProviderServer:
    """A provider that listens on 127.0.0.1 while it is entered.

    Args:
        replies: What each request gets, in their order, or a function from a request to it: a text that the model
            writes, put into a tool call where the request offers a tool, or a misbehaviour. When none is left, requests
            get status 500.
        models: Names of the models that ``GET /v1/models`` lists.
        drip_seconds: Time between two bytes of a slow reply, > 0. Shorter than a client's timeout for one read, it shows
            whether the client has one for the whole.

    Example:
        >>> with ProviderServer(["{}", Misbehaviour.SILENCE]) as server:
        ...     url = server.url("openai")
        >>> server.requests
        ()
    """

    def __init__(
        self,
        replies: Iterable[Reply] | Callable[[RecordedRequest], Reply],
        models: Iterable[str] = ("test-model",),
        drip_seconds: float = 1.0,
    ) -> None:
        self._replies = replies if callable(replies) else _in_order(replies)
        self._models = tuple(models)
        self.drip_seconds = drip_seconds
        self._recorded: list[RecordedRequest] = []
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="provider-server")
        self._refusing = socket.socket()  # bound and not listening: whoever connects is refused
        self._refusing.bind(("127.0.0.1", 0))

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """What arrived so far."""
        with self._lock:
            return tuple(self._recorded)

    @property
    def num_bytes_sent(self) -> int:
        """Bytes of bodies that were handed to the network so far."""
        return self._server.num_bytes_sent

    def url(self, wire: Wire = "openai") -> str:
        """Return the base URL for clients of a wire format."""
        return f"http://127.0.0.1:{self._server.server_port}" + ("/v1" if wire == "openai" else "")

    def refusing_url(self, wire: Wire = "openai") -> str:
        """Return a base URL that refuses connections."""
        return f"http://127.0.0.1:{self._refusing.getsockname()[1]}" + ("/v1" if wire == "openai" else "")

    def reply(self, request: RecordedRequest) -> Reply:
        """Record a request and return what it gets."""
        with self._lock:
            self._recorded.append(request)
        with self._turn:  # not the same lock: a function that replies may look at what was recorded
            return self._replies(request) if request.method == "POST" else json.dumps(self._models)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.hang_up()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._refusing.close()


def _in_order(replies: Iterable[Reply]) -> Callable[[RecordedRequest], Reply]:
    left = iter(tuple(replies))
    return lambda _: next(left, Misbehaviour.SERVER_ERROR)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # `server_close` waits for the threads, which end when their connections do
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], provider: ProviderServer) -> None:
        self.provider = provider
        self.stopped = threading.Event()
        self.num_bytes_sent = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without looking up this machine's name, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, to end it."""
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client may go away in the middle of a misbehaviour."""

    def hang_up(self) -> None:
        """End all connections, whatever is going on in them."""
        self.stopped.set()
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # it is ended already


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _owner(self) -> _Server:
        assert isinstance(self.server, _Server)
        return self.server

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        """List the models."""
        names = json.loads(str(self._owner.provider.reply(self._recorded(None))))
        if not self.path.endswith("/models"):
            self._send(404, b"{}")
            return
        listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}
        self._send(200, json.dumps(listed).encode())

    def do_POST(self) -> None:
        """Reply, or misbehave."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        wire = wire_of(self.path)
        reply = self._owner.provider.reply(self._recorded(body))
        if wire is None:
            self._send(404, b"{}")
        elif isinstance(reply, str):
            self._send(200, json.dumps(reply_body(wire, reply, tool_of(wire, body))).encode())
        elif reply in STATUS:
            self._send_status(reply)
        else:
            # What is wrong with a reply's body is also wrong in a tool call, where there is one.
            self._misbehave(reply, bad_body(wire, reply, reply_body(wire, "{}", tool_of(wire, body))))

    def _recorded(self, body: Any) -> RecordedRequest:
        headers = {name.lower(): value for name, value in self.headers.items()}
        return RecordedRequest(self.command, self.path, headers, body)

    def _send(self, status: int, body: bytes, content_type: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self._write(body)

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)
        self._owner.num_bytes_sent += len(data)

    def _send_status(self, reply: Misbehaviour) -> None:
        words = reply.value
        if reply is Misbehaviour.UNAUTHORIZED:
            words += f": {dict(self.headers)}"
        body = json.dumps({"error": {"message": words, "type": "error", "code": None}}).encode()
        headers = {
            Misbehaviour.RATE_LIMITED: {"Retry_After": "3600"},
            # The same machine by another name: whatever follows is recorded.
            Misbehaviour.REDIRECT: {"Location": f"http://localhost:{self._owner.server_port}/elsewhere{self.path}"},
        }
        self._send(STATUS[reply], body, **headers.get(reply, {}))

    def _misbehave(self, reply: Misbehaviour, body: bytes) -> None:
        match reply:
            case Misbehaviour.SILENCE:
                self._owner.stopped.wait()
            case Misbehaviour.SLOW_HEADERS:
                self._drip(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Slow: " + b"x" * 3600)
            case Misbehaviour.SLOW_DRIP:
                self._head(f"Content-Length: {len(body)}")
                self._drip(body)
            case Misbehaviour.RESET:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())  # at once: closing the socket object waits for its files
            case Misbehaviour.HANG_UP:
                pass
            case Misbehaviour.NOT_HTTP:
                self._write(b"220 mail.example ESMTP ready\r\n\r\n")
            case Misbehaviour.TRUNCATED_BODY:
                self._head(f"Content-Length: {2 * len(body)}")
                self._write(body)
            case Misbehaviour.HUGE_BODY:
                self._head("Transfer-Encoding: chunked")
                self._flood()
            case _:
                types = {Misbehaviour.HTML: "text/html", Misbehaviour.WRONG_CONTENT_TYPE: "text/plain"}
                packed = {"Content_Encoding": "gzip"} if reply is Misbehaviour.PACKED_BODY else {}
                self._send(200, body, types.get(reply, "application/json"), **packed)
                return
        self.close_connection = True

    def _head(self, framing: str) -> None:
        self.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{framing}\r\n\r\n".encode())

    def _drip(self, data: bytes) -> None:
        for byte in data:
            self._write(bytes([byte]))
            if self._owner.stopped.wait(self._owner.provider.drip_seconds):
                return

    def _flood(self) -> None:
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for _ in range(HUGE_BYTES // 0x10000):
            self._write(chunk)
        self._write(b"0\r\n\r\n")
