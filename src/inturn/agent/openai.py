"""OpenAIProvider: language models of OpenAI, and of every server that speaks its protocol."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

from inturn.agent.json_schema import strict_schema
from inturn.agent.provider import ModelReply, ModelRequest
from inturn.contract import Usage
from inturn.errors import ConfigurationError, ProviderError, ProviderUnavailableError
from inturn.session.state import utcnow
from inturn.settings import load_settings

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion
    from openai.types.responses import Response

_TRANSIENT = frozenset({"server_error", "rate_limit_exceeded"})
_NO_KEY = "none"


class OpenAIProvider:
    """Asks a model through the official `openai` package, with structured output.

    - `model`, `api_key` and `base_url` default to the settings (`INTURN_OPENAI_MODEL`, `OPENAI_API_KEY`,
      `OPENAI_BASE_URL`). With a `base_url` the key may be missing: many compatible servers want none.
    - `api` is `responses`, or `chat` for compatible servers that only know Chat Completions.
    - `timeout` is the longest silence of the server, in seconds; `max_output_tokens` limits the answer.

    A call is tried once: in a worker the turn's own back-off is the retry, and respects `Retry-After`. The
    client is made with the first call in each process, so that nothing is shared across a fork. Responses
    are not kept on OpenAI's side (`store=False`).
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        api: Literal["responses", "chat"] = "responses",
        timeout: float = 60.0,
        max_output_tokens: int | None = None,
    ) -> None:
        settings = load_settings()
        if api not in ("responses", "chat"):
            raise ConfigurationError(f"api of OpenAIProvider must be 'responses' or 'chat', not {api!r}")
        if api_key is None and settings.openai_api_key is not None:
            api_key = settings.openai_api_key.get_secret_value()
        base_url = base_url or settings.openai_base_url
        if api_key is None and base_url is None:
            raise ConfigurationError("there is no key for OpenAI; set OPENAI_API_KEY, or pass api_key=")
        self.model = model or settings.openai_model
        self._api_key = api_key or _NO_KEY
        self._base_url = base_url
        self._api = api
        self._timeout = timeout
        self._max_output_tokens = max_output_tokens
        self._clients: dict[int, openai.OpenAI] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<OpenAIProvider {self.model!r}>"

    def generate(self, request: ModelRequest) -> ModelReply:
        """See `Provider.generate`."""
        import openai

        try:
            answer = self._ask(self._client(), request)
        except openai.APIStatusError as error:
            raise _status_error(error) from None
        except openai.APIConnectionError as error:  # time-outs as well
            kind = type(error.__cause__ or error).__name__
            raise ProviderUnavailableError(f"the provider could not be reached in time ({kind})") from None
        except (openai.OpenAIError, ValueError) as error:
            raise ProviderError(f"the provider's answer could not be read ({type(error).__name__})") from None
        try:
            return _from_chat(answer) if self._api == "chat" else _from_response(answer)
        except (AttributeError, LookupError, TypeError):
            # The client does not check what it is sent; another kind of server may be behind base_url.
            raise ProviderError(
                f"the provider's answer has not the form of {self._api!r}; check base_url and api"
            ) from None

    def _ask(self, client: openai.OpenAI, request: ModelRequest) -> Any:
        schema, strict = strict_schema(request.output)
        output = {"name": request.output.__name__, "schema": schema, "strict": strict}
        lines: Any = [
            {"role": message.role, "content": message.content}
            for message in request.messages
            if message.role != "tool"
        ]
        if self._api == "chat":
            return client.chat.completions.create(
                model=self.model,
                messages=[{"role": "system", "content": request.instructions}, *lines],
                response_format={"type": "json_schema", "json_schema": cast(Any, output)},
                max_completion_tokens=_given(self._max_output_tokens),
            )
        return client.responses.create(
            model=self.model,
            instructions=request.instructions,
            input=lines,
            text={"format": cast(Any, {"type": "json_schema", **output})},
            max_output_tokens=_given(self._max_output_tokens),
            store=False,
        )

    def _client(self) -> openai.OpenAI:
        from openai import OpenAI

        pid = os.getpid()
        with self._lock:
            if pid not in self._clients:
                self._clients[pid] = OpenAI(
                    api_key=self._api_key, base_url=self._base_url, timeout=self._timeout, max_retries=0
                )
            return self._clients[pid]


def _from_response(response: Response) -> ModelReply:
    if response.error is not None:
        if response.error.code in _TRANSIENT:
            raise ProviderUnavailableError(f"the provider failed to answer ({response.error.code})")
        raise ProviderError(f"the provider failed to answer ({response.error.code})")
    if response.incomplete_details is not None:
        _refuse(response.incomplete_details.reason)
    parts = [part for item in response.output if item.type == "message" for part in item.content]
    if any(part.type == "refusal" for part in parts):
        _refuse("refusal")
    usage = response.usage
    return ModelReply(
        _parsed("".join(part.text for part in parts if part.type == "output_text")),
        Usage(
            calls=1,
            input_tokens=usage.input_tokens if usage else 0,
            output_tokens=usage.output_tokens if usage else 0,
        ),
    )


def _from_chat(completion: ChatCompletion) -> ModelReply:
    choice = completion.choices[0]
    if choice.message.refusal:
        _refuse("refusal")
    if choice.finish_reason in ("length", "content_filter"):
        _refuse(choice.finish_reason)
    usage = completion.usage
    return ModelReply(
        _parsed(choice.message.content or ""),
        Usage(
            calls=1,
            input_tokens=usage.prompt_tokens if usage else 0,
            output_tokens=usage.completion_tokens if usage else 0,
        ),
        choice.finish_reason,
    )


def _refuse(reason: str | None) -> NoReturn:
    if reason == "refusal":
        raise ProviderError("the model refused to answer")
    if reason == "content_filter":
        raise ProviderError("the provider's content filter stopped the answer")
    raise ProviderError(f"the model's answer was cut off ({reason}); allow more with max_output_tokens")


def _parsed(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        raise ProviderError(f"the model's answer is not JSON ({len(text)} characters)") from None
    if not isinstance(data, dict):
        raise ProviderError(f"the model's answer is not a JSON object but {type(data).__name__}")
    return data


def _status_error(error: openai.APIStatusError) -> ProviderError:
    # The body may repeat what was sent, so only its code is told.
    told = f"HTTP {error.status_code}" + (f", {error.code}" if error.code else "")
    if error.status_code in (408, 409, 425, 429) or error.status_code >= 500:
        return ProviderUnavailableError(
            f"the provider cannot answer now ({told})", retry_after=_retry_after(error.response.headers)
        )
    if error.status_code in (401, 403):
        return ProviderError(f"the provider refused the key ({told}); check OPENAI_API_KEY")
    return ProviderError(f"the provider refused the request ({told})")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds to wait that `Retry-After` states, as a number or as a date."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - utcnow()).total_seconds()
        except (ValueError, TypeError):  # a date that is none, or without a zone
            return None
    return seconds if 0 <= seconds < math.inf else None


def _given(value: int | None) -> Any:
    from openai import omit

    return omit if value is None else value
