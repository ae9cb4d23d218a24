"""Recorded conversations with agents that are made of the services they were held with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from inturn import Agent
from inturn.contract import Response, TurnResult
from inturn.errors import ProviderUnavailableError
from inturn.ids import create_turn_id
from inturn.persistence import MemoryAdapter
from inturn.session.state import utcnow
from inturn.testing.history import Accepted, check_store
from tests.services import Course, Named, RecordedTurn, agent_of, conversations, needs_recordings, services

pytestmark = needs_recordings


@pytest.mark.parametrize(
    ("streams", "knows_next"), [(False, True), (True, False)], ids=["whole", "streamed with wrong guesses"]
)
@pytest.mark.long
def test_every_turn_of_every_conversation_comes_to_what_was_recorded(streams: bool, knows_next: bool) -> None:
    def take(bot: Agent, turn: RecordedTurn) -> Response:
        return streamed(bot, turn.text) if streams else bot.respond(turn.text)

    converse(take, knows_next=knows_next)


@pytest.mark.long
def test_turns_that_break_off_at_every_question_to_the_model_come_to_the_same() -> None:
    breaks: list[ProviderUnavailableError] = []

    def take(bot: Agent, turn: RecordedTurn) -> Response:
        turn_id = create_turn_id(turn.session_id)
        while True:
            try:
                return bind(bot, turn).respond(turn.text, turn_id=turn_id)
            except ProviderUnavailableError as error:
                breaks.append(error)

    converse(take, is_busy=True)

    assert len(breaks) > sum(map(len, conversations()))


def converse(
    take: Callable[[Agent, RecordedTurn], Response], *, knows_next: bool = True, is_busy: bool = False
) -> None:
    """Hold all conversations, each with the agent of its service, and look at every turn."""
    store = MemoryAdapter()
    agents = {
        name: agent_of(
            [name],
            [each for each in conversations() if each[0].service == name],
            knows_next=knows_next,
            is_busy=is_busy,
            persistence=store,
        )
        for name in services()
    }
    accepted: list[Accepted] = []
    results: list[TurnResult] = []
    for conversation in conversations():
        course, tools = Course(Named(by_service=False)), 0
        for turn in conversation:
            bot = bind(agents[turn.service], turn)
            response = take(bot, turn)
            session_id, turn_id = turn.session_id, response.turn_id
            rows = bind(bot, turn).session.get_history()
            before, tools = tools, sum(row.role == "tool" for row in rows)
            assert tools - before <= 1
            wrong = course.wrong(
                turn, response, rounds=None if is_busy else tools - before, guesses=not knows_next
            )
            assert wrong == {}, f"{session_id}: {turn.text}"
            accepted.append(Accepted(session_id, turn_id, len(accepted), utcnow()))
            results.append(
                TurnResult(kind="respond", session_id=session_id, turn_id=turn_id, response=response)
            )

    verdict = check_store(store, accepted, results)
    assert len(conversations()) == 400
    assert verdict.ok, verdict.explain()


def bind(bot: Agent, turn: RecordedTurn) -> Agent:
    """A new agent each time, as in a worker: all that it knows comes out of the store."""
    return bot.bind(turn.session_id, user_id=turn.user_id)


def streamed(bot: Agent, text: str) -> Response:
    told = ""
    with bot.stream(text) as stream:
        for piece in stream:
            told = piece.text if piece.restarts else told + piece.text
    assert told == stream.response.message
    return stream.response
