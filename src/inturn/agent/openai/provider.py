"""OpenAIProvider: asks one model, and others if that one cannot answer."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Literal

import structlog

from inturn.agent.openai import chat, responses
from inturn.agent.openai.answer import Price
from inturn.agent.openai.api import Api
from inturn.agent.openai.errors import calling, none_answered, reading
from inturn.agent.openai.streams import hear
from inturn.agent.openai.timeouts import Timeouts
from inturn.agent.provider import ModelReply, ModelRequest
from inturn.errors import ConfigurationError, ProviderError
from inturn.settings import load_settings

if TYPE_CHECKING:
    import openai

log = structlog.get_logger(__name__)

_APIS: Mapping[str, Api] = {"responses": responses, "chat": chat}
_NO_KEY = "none"


class OpenAIProvider:
    """Asks a model through the official `openai` package, with structured output, tools and streams.

    - `model`, `api_key` and `base_url` default to the settings (`INTURN_OPENAI_MODEL`, `OPENAI_API_KEY`,
      `OPENAI_BASE_URL`). With a `base_url` the key may be missing: many compatible servers want none.
    - `api` is `responses`, or `chat` for compatible servers that only know Chat Completions.
    - `backup_models` are asked in turn, in the same call, when the model before them cannot answer now (429,
      5xx, time-outs, lost connections). Of a stream only before its first piece.
    - `connect_timeout` is how long the server may take to accept a connection, `first_token_timeout` how
      long a stream may take to begin with its output, `timeout` how long it may take in all. Where the
      answer comes as a whole, `timeout` is the longest silence. In seconds; each model has them anew.
    - `max_output_tokens` limits the answer.
    - `prices` by the names of the models, for `Usage.cost`.
    - `token_budget` is the most tokens that the model should be sent: longer conversations are compacted.

    A model is asked once in a call: in a worker the turn's own back-off is the retry, and respects
    `Retry-After`. If no model answers, the error is retryable as the first model's is, and `retry_after` the
    shortest that was stated. The client is made with the first call in each process, so that nothing is
    shared across a fork. Responses are not kept on OpenAI's side (`store=False`).
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        api: Literal["responses", "chat"] = "responses",
        backup_models: Sequence[str] = (),
        connect_timeout: float = 5.0,
        first_token_timeout: float = 30.0,
        timeout: float = 60.0,
        max_output_tokens: int | None = None,
        prices: Mapping[str, Price] | None = None,
        token_budget: int | None = None,
    ) -> None:
        settings = load_settings()
        if api not in _APIS:
            raise ConfigurationError(f"api of OpenAIProvider must be 'responses' or 'chat', not {api!r}")
        if isinstance(backup_models, str):
            raise ConfigurationError(f"backup_models must be a list; write [{backup_models!r}]")
        if token_budget is not None and token_budget <= 0:
            raise ConfigurationError(f"token_budget must be more than 0 or None, not {token_budget!r}")
        if api_key is None and settings.openai_api_key is not None:
            api_key = settings.openai_api_key.get_secret_value()
        base_url = base_url or settings.openai_base_url
        if api_key is None and base_url is None:
            raise ConfigurationError("there is no key for OpenAI; set OPENAI_API_KEY, or pass api_key=")
        self.model = model or settings.openai_model
        self.backup_models = tuple(backup_models)
        self.token_budget = token_budget
        self._api_key = api_key or _NO_KEY
        self._base_url = base_url
        self._api_name = api
        self._api = _APIS[api]
        self._timeouts = Timeouts(connect_timeout, first_token_timeout, timeout)
        self._max_output_tokens = max_output_tokens
        self._prices = dict(prices or {})
        self._clients: dict[int, openai.OpenAI] = {}
        self._lock = threading.Lock()
        # Left to themselves, connections would be found unclosed by the garbage collector.
        weakref.finalize(self, _close, self._clients).atexit = False

    def __repr__(self) -> str:
        return f"<OpenAIProvider {self.model!r}>"

    def generate(self, request: ModelRequest) -> ModelReply:
        """See `Provider.generate`."""
        faults: list[tuple[str, ProviderError]] = []
        for model in (self.model, *self.backup_models):
            try:
                return self._generate(model, request)
            except ProviderError as error:
                self._note(faults, model, error)
        raise none_answered(faults)

    def stream(self, request: ModelRequest) -> Generator[str, None, ModelReply]:
        """See `Provider.stream`."""
        faults: list[tuple[str, ProviderError]] = []
        for model in (self.model, *self.backup_models):
            with closing(self._stream(model, request)) as pieces:
                try:
                    first = next(pieces)
                except StopIteration as end:
                    reply: ModelReply = end.value
                    return reply
                except ProviderError as error:
                    self._note(faults, model, error)
                    continue
                # From here on another model's answer would not fit to what was told.
                yield first
                return (yield from pieces)
        raise none_answered(faults)

    def _generate(self, model: str, request: ModelRequest) -> ModelReply:
        client = self._client()
        with calling(self._timeouts.told(streams=False)):
            given = self._api.ask(
                client,
                model,
                request,
                self._max_output_tokens,
                timeout=self._timeouts.of_client(streams=False),
            )
        with reading(self._api_name):
            answer = self._api.read(given)
        return answer.to_reply(self._prices.get(model))

    def _stream(self, model: str, request: ModelRequest) -> Generator[str, None, ModelReply]:
        client = self._client()  # whose making is not the server's time
        asked_at = time.monotonic()
        with calling(self._timeouts.told(streams=True)):
            stream = self._api.ask(
                client,
                model,
                request,
                self._max_output_tokens,
                stream=True,
                timeout=self._timeouts.of_client(streams=True),
            )
        transcript = self._api.transcript()
        answer = yield from hear(stream, transcript, self._api_name, self._timeouts, asked_at)
        return answer.to_reply(self._prices.get(model))

    def _note(self, faults: list[tuple[str, ProviderError]], model: str, error: ProviderError) -> None:
        """Note why a model did not answer, and raise it if no other is to be asked for that reason.

        Once the first model is unavailable, whatever keeps a backup from answering is no reason to give up.
        """
        if not faults and not error.retryable:
            raise error
        faults.append((model, error))
        if len(faults) <= len(self.backup_models):
            log.warning("a model cannot answer: asking the next", model=model, error=type(error).__name__)

    def _client(self) -> openai.OpenAI:
        from openai import OpenAI

        pid = os.getpid()
        with self._lock:
            if pid not in self._clients:
                self._clients[pid] = OpenAI(api_key=self._api_key, base_url=self._base_url, max_retries=0)
            return self._clients[pid]


def _close(clients: dict[int, openai.OpenAI]) -> None:
    # Those that were made before a fork are the parent's.
    if (client := clients.get(os.getpid())) is not None:
        client.close()
