"""OpenAIProvider's options, and what its threads and processes share."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llmock.pytest_plugin import LLMock

from inturn import OpenAIProvider
from inturn.agent import ModelReply
from inturn.errors import ConfigurationError
from tests.asking import APIS, WAYS, Api, Way, reply_of


class TestSettings:
    def test_without_a_key_and_a_server_there_is_nothing_to_ask(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "INTURN_OPENAI_API_KEY", "INTURN_OPENAI_BASE_URL"):
            monkeypatch.delenv(name, raising=False)

        with pytest.raises(ConfigurationError, match="set OPENAI_API_KEY"):
            OpenAIProvider()
        OpenAIProvider(base_url="http://127.0.0.1:9/v1")  # many compatible servers want no key

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ({"api": "completions"}, "'responses' or 'chat', not 'completions'"),
            ({"timeout": 0}, "timeout of OpenAIProvider must be more than 0 seconds"),
            ({"first_token_timeout": -1}, "first_token_timeout of OpenAIProvider must be more than 0"),
            ({"connect_timeout": float("inf")}, "not endless, not inf"),
            ({"backup_models": "gpt-b"}, r"must be a list; write \['gpt-b'\]"),
            ({"token_budget": 0}, "token_budget must be more than 0 or None, not 0"),
        ],
    )
    def test_wrong_options_are_refused(self, wrong: dict[str, Any], told: str) -> None:
        with pytest.raises(ConfigurationError, match=told):
            OpenAIProvider(api_key="k", **wrong)

    def test_the_budget_can_be_read(self) -> None:
        assert OpenAIProvider(api_key="k", token_budget=8000).token_budget == 8000
        assert OpenAIProvider(api_key="k").token_budget is None


class TestThreadsAndForks:
    @pytest.fixture(params=APIS)
    def api(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    @pytest.fixture(params=WAYS)
    def way(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    @pytest.fixture
    def provider(self, llmock: LLMock, api: Api) -> OpenAIProvider:
        return OpenAIProvider("gpt-test", api=api)

    def test_threads_share_one_client(self, llmock: LLMock, provider: OpenAIProvider, way: Way) -> None:
        with ThreadPoolExecutor(8) as pool:
            replies: list[ModelReply] = list(pool.map(lambda _: reply_of(provider, way=way), range(24)))

        assert len(replies) == 24
        assert len(provider._clients) == 1

    def test_a_forked_process_makes_a_client_of_its_own(self, llmock: LLMock) -> None:
        subprocess.run([sys.executable, "-c", FORKS], check=True, timeout=60)

        assert len(llmock.requests) == 3

    def test_the_package_is_loaded_with_the_first_call(self) -> None:
        code = (
            "import sys; from inturn import OpenAIProvider; OpenAIProvider(api_key='k');"
            "sys.exit(any(name in sys.modules for name in ('openai', 'httpx2')))"
        )

        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


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
