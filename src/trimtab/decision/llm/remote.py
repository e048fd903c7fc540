"""Language models behind an API: OpenAI, Anthropic, Google, and every server that speaks OpenAI's chat completions.

Rules:
1. The SDKs, and pydantic-ai above them, put a request into a provider's form and read its reply; what goes over the wire
   is bounded and checked by `trimtab.decision.llm.http_call`.
2. One call is one request: an SDK that tries again spends twice.
3. The messages are sent exactly as they stand; nothing is added to them but the schema, in the place a provider has for it.
4. Every call has a loop and a client of its own, so that none meets a connection of another.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from trimtab.controls.manager_settings import Output
from trimtab.decision.llm.http_call import HttpCall, check_url, open_client, run_within
from trimtab.decision.llm.provider import Completion, Request
from trimtab.errors import Fault, MissingExtraError, ProviderError, UsageError

if TYPE_CHECKING:
    import httpx2
    from pydantic_ai.messages import ModelMessage, ModelRequestPart, ModelResponse
    from pydantic_ai.models import Model, ModelRequestParameters
    from pydantic_ai.settings import ModelSettings

Kind = Literal["openai", "anthropic", "google", "url"]

# Given to the SDKs, which would otherwise look for one in the environment.
_URLS: Final[dict[str, str]] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "google": "https://generativelanguage.googleapis.com",
}
_NAME: Final = "decision"
_TOOL: Final = "decide"
_MAX_NAME: Final = 200
_NO_KEY: Final = "none"
_MOST_TOKENS: Final = 1_000_000_000  # a count above it is not believed
# What a provider or a chat template adds: the marks around a message and at the reply's start, and its own words about
# a schema or a tool (Anthropic: up to 530 tokens).
_TOKENS_A_MESSAGE: Final = 16
_TOKENS_A_SCHEMA: Final = 640


class RemoteProvider:
    """A model behind an API; `open_remote` makes it.

    Args:
        kind: Whose API.
        model: The model's name; empty to ask the server for the one that it has, at the first call.
        url: Base URL.
        key: The key; empty for a server that needs none.
        output: How the schema is asked for.
    """

    def __init__(self, kind: Kind, model: str, url: str, key: str, output: Output) -> None:
        self._kind: Kind = kind
        self._model = model
        self._url = url
        self._key = key
        self._output: Output = output
        self._open_model = _opener(kind)

    @property
    def model(self) -> str:
        """Name of the model that is asked; the server's URL as long as the name is not known."""
        return self._model or self._url

    def complete(self, request: Request) -> Completion:
        """Return the model's reply; not to be called inside a running event loop.

        Raises:
            ProviderError: Ask again at the next question.
        """
        call = HttpCall(self._key)
        problem: ProviderError | None = None
        try:
            with _quiet():
                response = run_within(self._request(call, request), request.timeout_seconds)
                return _completion(response, call, self.model)
        except ProviderError as error:
            problem = error
        except TimeoutError:
            problem = call.problem("timeout", f"no reply within {request.timeout_seconds:g} seconds")
        except Exception as error:  # noqa: BLE001 - openai's, anthropic's, google's and pydantic-ai's errors share no base; each becomes a ProviderError, raised below
            problem = call.fault or _problem(error, call)
        # What an SDK raised has requests and headers in it; it does not travel on as the context.
        problem.__context__ = None
        raise problem.with_traceback(None)

    def most_input_tokens(self, request: Request) -> int:
        """Return a number of tokens that reading ``request`` cannot exceed.

        A tokenizer that works on bytes, or falls back to them, makes at most one token of a byte. One that first writes
        single characters out as several could make more of them; none of the models known here does.
        """
        most = sum(_num_bytes(message.text) for message in request.messages)
        most += _TOKENS_A_MESSAGE * (len(request.messages) + 1)  # and the reply's start
        if request.schema is not None:
            # In whatever form a provider shows the schema to its model, indented or as a type of some language, that is
            # no longer in tokens than the compact JSON is in bytes: tokens are at most bytes, the names and marks are the
            # same, and a token for a line's indentation is less than the bytes that the words of that line spare.
            most += _num_bytes(json.dumps(request.schema, separators=(",", ":"))) + _TOKENS_A_SCHEMA
        return most

    async def _request(self, call: HttpCall, request: Request) -> ModelResponse:
        async with open_client(call, self._url) as client:
            if not self._model:
                call.unread = True  # a list of models is no prompt
                self._model = await _only_model(client, call, self._url)
            call.answered = call.unread = False  # by the model itself
            model = self._open_model(self._model, self._url, self._key or _NO_KEY, client)
            return await model.request(_messages(request), _settings(request), _parameters(request, self._output))


def open_remote(kind: str, model: str, *, url: str | None, key: str, output: Output) -> RemoteProvider:
    """Make the provider of a model behind an API. Nothing is called yet, but the SDK is imported.

    Args:
        kind: ``openai``, ``anthropic``, ``google``, or ``url`` for any server that speaks OpenAI's chat completions.
        model: The model's name; empty, with ``url``, for the one model that the server has.
        url: Base URL, with ``/v1`` where the server has it; None for the provider's own.
        key: The key; may be empty with ``url``.
        output: How the schema is asked for.

    Raises:
        UsageError: Correct the kind, the model, the URL or the key.
        MissingExtraError: Install trimtab[llm].
    """
    if kind not in ("openai", "anthropic", "google", "url"):
        raise UsageError("there is no such provider", received=kind, allowed="openai, anthropic, google, url")
    key = key.strip()
    if not key and kind != "url":
        raise UsageError(f"the key for {kind} is missing", next_step="set it in the environment")
    if not (key.isascii() and key.isprintable()):
        raise UsageError("the key cannot be sent", received="characters that no header takes", allowed="printable ASCII")
    if url is None and kind == "url":
        raise UsageError("the server's URL is missing", allowed="such as http://127.0.0.1:8000/v1")
    if not model.isprintable() or (not model and kind != "url"):
        raise UsageError("the model's name is missing or cannot be sent", received=model, allowed=f"{kind}:MODEL")
    _opener(kind)  # before the URL, which is read with the same packages
    return RemoteProvider(kind, model, check_url(url or _URLS[kind]), key, output)


async def _only_model(client: httpx2.AsyncClient, call: HttpCall, url: str) -> str:
    """Ask a server for the model that it has."""
    response = await client.get(f"{url}/models", headers={"Authorization": f"Bearer {call.key or _NO_KEY}"})
    entries: Any = response.json().get("data")
    if not isinstance(entries, list):
        call.fail("malformed", f"{url}/models does not list models")
    listed = [cast("dict[str, Any]", entry).get("id") for entry in cast("list[Any]", entries) if isinstance(entry, dict)]
    names = sorted(name for name in listed if isinstance(name, str) and name)
    if len(names) != 1:
        call.fail("not_found", f"name one of the {len(names)} models at {url}: {', '.join(names)}")
    if len(names[0]) > _MAX_NAME or not names[0].isprintable():
        call.fail("malformed", f"{url}/models lists a model without a usable name")
    return names[0]


Opener = Callable[[str, str, str, "httpx2.AsyncClient"], "Model[Any]"]


def _opener(kind: Kind) -> Opener:
    """Import what a kind needs, and return how to make its model.

    Raises:
        MissingExtraError: Install trimtab[llm].
    """
    openers: dict[Kind, Callable[[], Opener]] = {
        "openai": lambda: _openai(own=True),
        "url": lambda: _openai(own=False),
        "anthropic": _anthropic,
        "google": _google,
    }
    try:
        return openers[kind]()
    except ImportError as error:
        raise MissingExtraError(
            f"the language model {kind} needs packages that are not installed",
            received=str(error),
            next_step="pip install 'trimtab[llm]'",
        ) from error


def _openai(*, own: bool) -> Opener:
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider

    def opened(model: str, url: str, key: str, client: httpx2.AsyncClient) -> Model[Any]:
        sdk = AsyncOpenAI(api_key=key, base_url=url, max_retries=0, http_client=client)
        profile = OpenAIModelProfile(supports_json_schema_output=True, supports_tools=True)
        if not own:
            sdk.organization = sdk.project = None  # of the environment, and meant for OpenAI
            profile["openai_chat_supports_max_completion_tokens"] = False  # Ollama knows only the older max_tokens
        return OpenAIChatModel(model, provider=OpenAIProvider(openai_client=sdk), profile=profile)

    return opened


def _anthropic() -> Opener:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.profiles import ModelProfile
    from pydantic_ai.providers.anthropic import AnthropicProvider

    def opened(model: str, url: str, key: str, client: httpx2.AsyncClient) -> Model[Any]:
        sdk = AsyncAnthropic(api_key=key, base_url=url, max_retries=0, http_client=client)
        profile = ModelProfile(supports_json_schema_output=True, supports_tools=True)
        return AnthropicModel(model, provider=AnthropicProvider(anthropic_client=sdk), profile=profile)

    return opened


def _google() -> Opener:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.profiles import ModelProfile
    from pydantic_ai.providers.google import GoogleProvider

    def opened(model: str, url: str, key: str, client: httpx2.AsyncClient) -> Model[Any]:
        # Without retry_options it does not try again.
        provider = GoogleProvider(api_key=key, base_url=url, http_client=client)
        profile = ModelProfile(supports_json_schema_output=True, supports_tools=True)
        return GoogleModel(model, provider=provider, profile=profile)

    return opened


def _messages(request: Request) -> list[ModelMessage]:
    from pydantic_ai.messages import ModelRequest, ModelResponse, SystemPromptPart, TextPart, UserPromptPart

    turns: list[ModelMessage] = []
    parts: list[ModelRequestPart] = []
    for message in request.messages:
        if message.role == "assistant":
            turns += [ModelRequest(parts=parts), ModelResponse(parts=[TextPart(message.text)])]
            parts = []
        else:
            parts.append(SystemPromptPart(message.text) if message.role == "system" else UserPromptPart(message.text))
    return [*turns, ModelRequest(parts=parts)]


def _settings(request: Request) -> ModelSettings:
    from pydantic_ai.settings import ModelSettings

    settings = ModelSettings(max_tokens=request.reply_tokens, timeout=request.timeout_seconds)
    if request.temperature is not None:
        settings["temperature"] = request.temperature
    return settings


def _parameters(request: Request, output: Output) -> ModelRequestParameters:
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.output import OutputObjectDefinition
    from pydantic_ai.tools import ToolDefinition

    if request.schema is None or output == "text":
        return ModelRequestParameters()
    if output == "native":
        wanted = OutputObjectDefinition(json_schema=request.schema, name=_NAME, strict=True)
        return ModelRequestParameters(output_mode="native", output_object=wanted, allow_text_output=True)
    tool = ToolDefinition(
        name=_TOOL, parameters_json_schema=request.schema, description="Say what you decide.", kind="output", strict=True
    )
    return ModelRequestParameters(output_mode="tool", output_tools=[tool], allow_text_output=False)


def _completion(response: ModelResponse, call: HttpCall, model: str) -> Completion:
    """Read a reply; raises ProviderError for one that is none."""
    from pydantic_ai.messages import TextPart, ToolCallPart

    input_tokens, output_tokens = _count(response.usage.input_tokens), _count(response.usage.output_tokens)

    def fail(fault: Fault, detail: str) -> ProviderError:
        return ProviderError(fault, call.shown(detail), input_tokens=input_tokens, output_tokens=output_tokens)

    match response.finish_reason:
        case "length":
            raise fail("cut_off", "it reached manager.reply_tokens")
        case "content_filter":
            raise fail("refused", str((response.provider_details or {}).get("refusal", "a filter stopped it")))
        case "error":
            raise fail("failed", "the model stopped with an error")
        case _:
            pass
    calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
    text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    if calls:
        if calls[0].tool_name != _TOOL:
            raise fail("malformed", f"the model called {calls[0].tool_name}, which it was not given")
        text = calls[0].args if isinstance(calls[0].args, str) else json.dumps(calls[0].args)
    if not text.strip():
        raise fail("malformed", "the reply is empty")
    if not _is_text(text):
        raise fail("malformed", "the reply has half a character in it")
    return Completion(text, call.shown(response.model_name or model), input_tokens, output_tokens)


def _count(tokens: int) -> int | None:
    """Return a count of tokens, or None for one that cannot be: what is not counted reads as 0."""
    return tokens if 0 < tokens <= _MOST_TOKENS else None


def _problem(error: Exception, call: HttpCall) -> ProviderError:
    """Return what an SDK's error means: after a readable response, that it makes no sense; before, that it was not sent."""
    from pydantic_ai.exceptions import ContentFilterError

    fault: Fault = "malformed" if call.answered else "failed"
    if isinstance(error, ContentFilterError):
        fault = "refused"
    return call.problem(fault, f"{type(error).__name__}: {error}")


@contextmanager
def _quiet() -> Generator[None]:
    """Keep two warnings from the log at every call: a temperature that a model does not take, and tokens it cannot count."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sampling parameters", category=UserWarning)
        warnings.filterwarnings("ignore", message="Failed to extract usage")
        yield


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
