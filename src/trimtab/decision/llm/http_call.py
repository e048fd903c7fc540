"""One call over HTTP with a provider: bounded in time and in size, and checked before an SDK reads it.

Rules:
1. A deadline holds for the whole call: a server that sends a byte a second does not outlast it.
2. A body that is longer than any reply, packed, or no plain JSON object is not read on and not passed on.
3. Nothing is sent twice and no redirect is followed: the key goes to the address that the user named, and to no other.
   Proxies of the environment are used for https alone; plain http is for this machine and its neighbours.
4. No message has the key in it, whatever the server sends back.
5. A failure says that no token was read or written only where that is certain: no connection came about, or the server
   turned the request away. Whatever was sent and never answered may have been read.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Never, TypeVar, cast

from trimtab.errors import Fault, ProviderError, UsageError

if TYPE_CHECKING:
    import httpx2

MAX_BODY_BYTES: Final = 8 * 2**20  # a million tokens are about half of it
_MAX_WORDS: Final = 240
_FAULTS_BY_STATUS: Final[dict[int, Fault]] = {
    401: "unauthorized",
    403: "unauthorized",
    404: "not_found",
    408: "timeout",
    429: "rate_limited",
}
_TURNED_AWAY: Final = frozenset({400, 401, 403, 404, 429})
_READ_FIRST: Final = ("content_filter", "content filtering policy", "context_length")  # Azure counts these 400s
_Result = TypeVar("_Result")


@dataclass(slots=True)
class HttpCall:
    """What became of one call on the wire.

    Args:
        key: The key, which must not be seen; empty for a server that needs none.
        fault: What went wrong on the wire; None if nothing did.
        answered: Whether a readable reply has arrived.
        unread: Whether it is certain that the model has read nothing so far.
    """

    key: str = field(repr=False)
    fault: ProviderError | None = None
    answered: bool = False
    unread: bool = False

    def fail(self, fault: Fault, detail: str) -> Never:
        """End the call.

        Raises:
            ProviderError: Always.
        """
        self.fault = self.problem(fault, detail)
        raise self.fault

    def problem(self, fault: Fault, detail: str) -> ProviderError:
        """Return what went wrong, with no tokens if the model has certainly read nothing, else without a count."""
        num_tokens = 0 if self.unread else None
        return ProviderError(fault, self.shown(detail), input_tokens=num_tokens, output_tokens=num_tokens)

    def shown(self, text: str) -> str:
        """Return a text as it can be shown: on one line, not long, and without the key."""
        if self.key:
            for form in (self.key, json.dumps(self.key)[1:-1], repr(self.key)[1:-1]):
                text = text.replace(form, "[redacted]")
        text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
        return text if len(text) <= _MAX_WORDS else text[: _MAX_WORDS - 3] + "..."


def run_within(call: Coroutine[Any, Any, _Result], seconds: float) -> _Result:
    """Run a call in a loop of its own.

    Raises:
        TimeoutError: It is not over after ``seconds``.
    """

    async def limited() -> _Result:
        async with asyncio.timeout(seconds):
            return await call

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(limited())
    finally:
        # Not asyncio.run, which waits for a thread that still looks up a host's name.
        try:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()


def check_url(url: str) -> str:
    """Return a base URL without the slash at its end.

    Raises:
        UsageError: Correct the URL.
    """
    import httpx2

    allowed = "http:// or https://, a host and a path, without a user's name, a query or a fragment"
    try:
        parsed = httpx2.URL(url.strip())
    except httpx2.InvalidURL as error:
        raise UsageError(f"the provider's URL is no URL: {error}", allowed=allowed) from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo or parsed.query or parsed.fragment:
        # Not shown: a URL with more in it than an address may have a key in it.
        raise UsageError("the provider's URL cannot be used", allowed=allowed, next_step="give the key by the environment")
    return str(parsed).rstrip("/")


def open_client(call: HttpCall, url: str) -> httpx2.AsyncClient:
    """Return a client for one call, which checks what arrives; to be entered and left in the call's loop."""
    import httpx2

    class Client(httpx2.AsyncClient):
        async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
            request.headers["Accept-Encoding"] = "identity"
            if not call.key:
                request.headers.pop("Authorization", None)  # the SDK's placeholder
            options |= {"stream": True, "follow_redirects": False}
            return await _checked(call, lambda: super(Client, self).send(request, **options))

    return Client(verify=_tls(), trust_env=url.startswith("https://"), follow_redirects=False, timeout=None)


@cache
def _tls() -> Any:
    """Return an SSL context with the certificates to trust: reading them takes longer than a call to this machine."""
    import httpx2

    return httpx2.create_ssl_context()


async def _checked(call: HttpCall, send: Callable[[], Coroutine[Any, Any, httpx2.Response]]) -> httpx2.Response:
    """Send a request and read its whole response.

    Raises:
        ProviderError: There is no response, or none that an SDK should read; the call says so too.
    """
    import httpx2

    started = False
    try:
        response = await send()
        started = True
        try:
            body = await _read(call, response)
        finally:
            await response.aclose()
    except httpx2.TimeoutException as error:
        call.fail("timeout", type(error).__name__)
    except httpx2.RemoteProtocolError as error:
        # Before the first line of a response it is a server that went away; after it, a response that was cut off.
        gone = not started and "disconnected" in str(error)
        call.fail("unreachable" if gone else "malformed", str(error))
    except httpx2.TransportError as error:
        # Names, connections and TLS; a request is sent only after them.
        call.unread = call.unread or isinstance(error, httpx2.ConnectError)
        call.fail("unreachable", f"{type(error).__name__}: {error}")
    _check_status(call, response.status_code, body)
    _check_body(call, response.headers.get("Content-Type", ""), body)
    call.answered = True
    headers = {"Content-Type": "application/json"}
    return httpx2.Response(response.status_code, headers=headers, content=body, request=response.request)


async def _read(call: HttpCall, response: httpx2.Response) -> bytes:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        call.fail("malformed", "the body is packed, though none was asked for")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            call.fail("malformed", f"the body is longer than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _check_status(call: HttpCall, status: int, body: bytes) -> None:
    if 200 <= status < 300:
        return
    words = _words(body)
    if 300 <= status < 400 or (status in _TURNED_AWAY and not any(word in words for word in _READ_FIRST)):
        call.unread = True
    fault = _FAULTS_BY_STATUS.get(status, "overloaded" if status >= 500 else "failed")
    if fault == "failed" and "API_KEY_INVALID" in words:
        fault = "unauthorized"  # Google answers a wrong key with 400
    elif fault == "failed" and ("content_filter" in words or "content filtering policy" in words):
        fault = "refused"  # Azure and Anthropic
    if 300 <= status < 400:
        words = "redirects are not followed: give the URL that it leads to"
    elif fault == "unauthorized":
        words = ""  # these words can hold parts of the key
    elif fault == "not_found":
        words = f"{words} (a URL of your own has to be complete, /v1 included)"
    call.fail(fault, f"HTTP {status} {words}")


def _words(body: bytes) -> str:
    """Return what a server says about an error: its message and code if there are any, else nothing."""
    try:
        tree: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    error: Any = cast("dict[str, Any]", tree).get("error", tree) if isinstance(tree, dict) else tree
    if not isinstance(error, dict):
        return error if isinstance(error, str) else ""
    fields = cast("dict[str, Any]", error)
    details: Any = fields.get("details")
    inner = cast("list[Any]", details) if isinstance(details, list) else []
    reasons = [cast("dict[str, Any]", entry).get("reason") for entry in inner if isinstance(entry, dict)]
    said = [fields.get("message"), fields.get("detail"), fields.get("code"), *reasons]
    return " ".join(part for part in said if isinstance(part, str))


def _check_body(call: HttpCall, content_type: str, body: bytes) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    if not body.strip():
        call.fail("malformed", "the body is empty")
    if kind != "application/json" and not kind.endswith("+json"):
        call.fail("malformed", f"the body is {kind or 'of no type'}, not application/json")
    try:
        tree = json.loads(
            body.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        call.fail("malformed", f"the body is not JSON: {error}")
    if not isinstance(tree, dict):
        call.fail("malformed", "the body is not a JSON object")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return tree


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large")
    return number
