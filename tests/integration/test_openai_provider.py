"""OpenAIProvider against real servers: `llmock`, and a few lines for what that cannot say."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import pytest
from llmock.pytest_plugin import LLMock
from llmock.scenarios import Reply as Scripted
from pydantic import BaseModel, Field

from inturn import Agent, OpenAIProvider, Route, Step
from inturn.agent import ModelReply, ModelRequest
from inturn.agent.schema import Reply, Schema
from inturn.errors import ConfigurationError, ProviderError, ProviderUnavailableError
from inturn.persistence import MemoryAdapter
from inturn.session.state import HistoryItem

SECRET = "my dog is called Rex"
REQUEST = ModelRequest(
    instructions="You are kind.",
    messages=(
        HistoryItem(role="user", content="hi"),
        HistoryItem(role="assistant", content="hello"),
        HistoryItem(role="user", content=SECRET),
    ),
    output=Reply,
)


class Order(BaseModel):
    item: str
    count: int = Field(ge=1)
    day: dt.date
    size: Literal["small", "large"]


@pytest.fixture(params=["responses", "chat"])
def api(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def provider(llmock: LLMock, api: Literal["responses", "chat"]) -> OpenAIProvider:
    return OpenAIProvider("gpt-test", api=api)


def failure(provider: OpenAIProvider, request: ModelRequest = REQUEST) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        provider.generate(request)
    assert SECRET not in str(caught.value)
    return caught.value


# What is asked, and what comes back


def test_a_reply_is_json_with_its_usage(llmock: LLMock, provider: OpenAIProvider) -> None:
    llmock.reply('{"message": "Good dog!"}')

    reply = provider.generate(REQUEST)

    assert reply.data == {"message": "Good dog!"}
    assert reply.finish_reason == "stop"
    assert reply.usage.calls == 1
    assert reply.usage.input_tokens > 0
    assert reply.usage.output_tokens > 0


def test_the_conversation_and_the_schema_are_sent(llmock: LLMock) -> None:
    OpenAIProvider("gpt-test", max_output_tokens=100).generate(REQUEST)

    body = llmock.last_request.body
    assert llmock.last_request.path == "/v1/responses"
    assert body["model"] == "gpt-test"
    assert body["instructions"] == "You are kind."
    assert body["input"] == [{"role": line.role, "content": line.content} for line in REQUEST.messages]
    assert body["text"]["format"]["strict"] is True
    assert body["text"]["format"]["schema"]["required"] == ["message"]
    assert body["max_output_tokens"] == 100
    assert body["store"] is False


def test_the_same_is_sent_to_chat_completions(llmock: LLMock) -> None:
    OpenAIProvider("gpt-test", api="chat", max_output_tokens=100).generate(REQUEST)

    body = llmock.last_request.body
    assert llmock.last_request.path == "/v1/chat/completions"
    assert body["messages"][0] == {"role": "system", "content": "You are kind."}
    assert body["messages"][-1] == {"role": "user", "content": SECRET}
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["max_completion_tokens"] == 100


def test_an_answer_made_from_the_schema_fills_every_field(provider: OpenAIProvider) -> None:
    schema = Schema(Order)
    request = ModelRequest(instructions="x", messages=REQUEST.messages, output=schema.output(["a"]))

    reply = provider.generate(request)

    accepted = schema.accept(reply.data)
    assert set(accepted.values) == set(Order.model_fields)
    assert accepted.refused == {}
    assert reply.data["next_step"] == "a"


def test_an_agent_holds_a_conversation_through_it(llmock: LLMock, provider: OpenAIProvider) -> None:
    llmock.reply('{"item": null, "next_step": "item", "message": "What would you like?"}')
    llmock.reply('{"item": "tea", "next_step": "done", "message": "Tea it is."}')
    agent = Agent(
        "Shop",
        provider=provider,
        schema=Order,
        routes=[Route("Order", steps=[Step("What?", collect=["item"])])],
        persistence=MemoryAdapter(),
    )

    assert agent.respond("hi").message == "What would you like?"
    response = agent.respond("tea")

    assert (response.message, response.data, response.is_route_complete) == (
        "Tea it is.",
        {"item": "tea"},
        True,
    )
    assert len(llmock.requests) == 2


# What goes wrong


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_provider_that_is_busy_may_be_asked_later(
    llmock: LLMock, provider: OpenAIProvider, status: int
) -> None:
    llmock.fail(status, message=f"cannot say: {SECRET}")

    error = failure(provider)

    assert isinstance(error, ProviderUnavailableError)
    assert str(status) in str(error)
    assert len(llmock.requests) == 1, "the worker's back-off is the retry"


def test_retry_after_is_told(llmock: LLMock, provider: OpenAIProvider) -> None:
    llmock.rate_limit(retry_after=7)

    error = failure(provider)

    assert isinstance(error, ProviderUnavailableError)
    assert error.retry_after == 7


@pytest.mark.parametrize(
    ("status", "says"), [(400, "HTTP 400, bad"), (401, "OPENAI_API_KEY"), (404, "HTTP 404")]
)
def test_a_request_that_is_refused_is_not_to_be_repeated(
    llmock: LLMock, provider: OpenAIProvider, status: int, says: str
) -> None:
    llmock.fail(status, code="bad", message=f"cannot say: {SECRET}")

    error = failure(provider)

    assert not error.retryable
    assert says in str(error)


def test_a_silent_provider_may_be_asked_later(llmock: LLMock, api: Literal["responses", "chat"]) -> None:
    llmock.delay(5)

    error = failure(OpenAIProvider("gpt-test", api=api, timeout=0.2))

    assert isinstance(error, ProviderUnavailableError)
    assert "Timeout" in str(error)


def test_a_provider_that_is_not_there_may_be_asked_later(api: Literal["responses", "chat"]) -> None:
    error = failure(OpenAIProvider("gpt-test", api=api, base_url="http://127.0.0.1:9/v1", timeout=5))

    assert isinstance(error, ProviderUnavailableError)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Good dog!", "not JSON"),
        ('{"message": "Go', "not JSON"),
        ("", "not JSON"),
        ('["a"]', "not a JSON object but list"),
    ],
)
def test_an_answer_that_is_not_the_json_asked_for_is_an_error(
    llmock: LLMock, provider: OpenAIProvider, text: str, says: str
) -> None:
    llmock.reply(text)

    assert says in str(failure(provider))


def test_an_answer_that_was_cut_off_is_an_error_even_if_it_can_be_read(
    llmock: LLMock, provider: OpenAIProvider
) -> None:
    llmock.add(Scripted(text='{"message": "Good"}', finish_reason="length"))

    assert "cut off" in str(failure(provider))


def test_a_content_filter_is_told(llmock: LLMock) -> None:
    llmock.add(Scripted(text='{"message": ""}', finish_reason="content_filter"))

    assert "content filter" in str(failure(OpenAIProvider("gpt-test", api="chat")))


# What llmock cannot say


@pytest.fixture
def says() -> Iterator[Callable[..., str]]:
    """A server that answers everything with one body; returns its base URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(body: str, content_type: str = "application/json", status: int = 200, **headers: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(status)
                for name, value in {"content-type": content_type, **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("content-length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def message(*content: dict[str, Any], **response: Any) -> str:
    output = [
        {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": list(content)}
    ]
    return json.dumps({"id": "r", "object": "response", "status": "completed", "output": output, **response})


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (message({"type": "refusal", "refusal": SECRET}), "the model refused to answer"),
        (message(incomplete_details={"reason": "content_filter"}), "content filter"),
        (message(incomplete_details={"reason": "max_output_tokens"}), "cut off (max_output_tokens)"),
        (message(status="failed", error={"code": "invalid_prompt", "message": SECRET}), "(invalid_prompt)"),
        ('{"object": "list"}', "has not the form of 'responses'; check base_url and api"),
        ("{", "could not be read"),
    ],
)
def test_other_faults_of_a_response_are_told(says: Callable[..., str], body: str, told: str) -> None:
    error = failure(OpenAIProvider("m", base_url=says(body), api_key="k"))

    assert told in str(error)
    assert not error.retryable


def test_a_response_that_failed_on_the_providers_side_may_be_repeated(says: Callable[..., str]) -> None:
    body = message(status="failed", error={"code": "server_error", "message": SECRET})

    assert failure(OpenAIProvider("m", base_url=says(body), api_key="k")).retryable


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"message": {"role": "assistant", "content": None, "refusal": SECRET}}, "refused to answer"),
        ({"message": {"role": "assistant", "content": None}}, "not JSON"),
    ],
)
def test_other_faults_of_a_completion_are_told(
    says: Callable[..., str], choice: dict[str, Any], told: str
) -> None:
    choices = [{"index": 0, "finish_reason": "stop", **choice}]
    body = json.dumps({"id": "c", "object": "chat.completion", "choices": choices})

    assert told in str(failure(OpenAIProvider("m", base_url=says(body), api_key="k", api="chat")))


def test_a_server_without_usage_will_do(says: Callable[..., str]) -> None:
    url = says(message({"type": "output_text", "text": '{"message": "hi"}', "annotations": []}))

    reply = OpenAIProvider("m", base_url=url, api_key="k").generate(REQUEST)

    assert (reply.data, reply.usage.input_tokens) == ({"message": "hi"}, 0)


@pytest.mark.parametrize("content_type", ["text/html", "application/json"])
def test_a_page_instead_of_an_answer_points_at_the_base_url(
    says: Callable[..., str], api: Literal["responses", "chat"], content_type: str
) -> None:
    url = says("<html>Welcome!</html>", content_type)

    error = failure(OpenAIProvider("m", base_url=url, api_key="k", api=api))

    assert "base_url" in str(error) or "could not be read" in str(error)


def test_retry_after_may_be_a_date(says: Callable[..., str]) -> None:
    later = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(minutes=2), usegmt=True)

    error = failure(OpenAIProvider("m", base_url=says("{}", status=503, retry_after=later), api_key="k"))

    assert isinstance(error, ProviderUnavailableError)
    assert error.retry_after is not None
    assert 60 < error.retry_after <= 120


@pytest.mark.parametrize("value", ["soon", "-5", "nan", "inf"])
def test_a_retry_after_that_says_nothing_is_ignored(says: Callable[..., str], value: str) -> None:
    error = failure(OpenAIProvider("m", base_url=says("{}", status=429, retry_after=value), api_key="k"))

    assert isinstance(error, ProviderUnavailableError)
    assert error.retry_after is None


# Settings, threads and forks


def test_without_a_key_and_a_server_there_is_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "INTURN_OPENAI_API_KEY", "INTURN_OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(ConfigurationError, match="set OPENAI_API_KEY"):
        OpenAIProvider()
    OpenAIProvider(base_url="http://127.0.0.1:9/v1")  # many compatible servers want no key


def test_an_unknown_api_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'responses' or 'chat'"):
        OpenAIProvider(api="completions", api_key="k")  # type: ignore[arg-type]


def test_threads_share_one_client(llmock: LLMock, provider: OpenAIProvider) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies: list[ModelReply] = list(pool.map(lambda _: provider.generate(REQUEST), range(24)))

    assert len(replies) == 24
    assert len(provider._clients) == 1


FORKS = """
import os
from inturn.agent import ModelRequest, OpenAIProvider
from inturn.agent.schema import Reply

request = ModelRequest(instructions="x", messages=(), output=Reply)
provider = OpenAIProvider("gpt-test")
provider.generate(request)
child = os.fork()
provider.generate(request)
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert os.getpid() in provider._clients
assert len(provider._clients) == (1 if child else 2)
"""


def test_a_forked_process_makes_a_client_of_its_own(llmock: LLMock) -> None:
    subprocess.run([sys.executable, "-c", FORKS], check=True, timeout=60)

    assert len(llmock.requests) == 3
