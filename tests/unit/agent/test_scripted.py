"""ScriptedProvider: says what it is told, and remembers what it was asked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from inturn.agent import ModelReply, ModelRequest, ScriptedProvider
from inturn.agent.schema import Reply
from inturn.contract import Usage
from inturn.errors import ProviderError

REQUEST = ModelRequest(instructions="", messages=(), output=Reply)


def test_replies_come_in_order_and_in_every_form() -> None:
    reply = ModelReply({"message": "c"}, Usage(calls=1, input_tokens=5))
    provider = ScriptedProvider(["a", {"message": "b", "x": 1}, reply, ProviderError("d")])

    assert provider.generate(REQUEST) == ModelReply({"message": "a"}, Usage(calls=1))
    assert provider.generate(REQUEST).data == {"message": "b", "x": 1}
    assert provider.generate(REQUEST) is reply
    with pytest.raises(ProviderError, match="d"):
        provider.generate(REQUEST)
    with pytest.raises(ProviderError, match="the script has 4 replies, this is request 5"):
        provider.generate(REQUEST)
    assert provider.requests == [REQUEST] * 5


def test_a_function_answers_each_request() -> None:
    provider = ScriptedProvider(lambda request: str(len(request.messages)))

    assert provider.generate(REQUEST).data == {"message": "0"}


def test_no_reply_is_said_twice_among_threads() -> None:
    provider = ScriptedProvider([str(number) for number in range(200)])

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda _: provider.generate(REQUEST).data["message"], range(200)))

    assert sorted(map(int, said)) == list(range(200))
