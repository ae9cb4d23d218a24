"""Streaming: the agent's reply to one message, its text written to the turn's stream as it comes."""

from __future__ import annotations

from collections.abc import Sequence

from inturn.agent import Agent
from inturn.contract import RespondPayload, Response
from inturn.errors import InturnError
from inturn.turns import Lease, OpenReply

from .asked import Asked
from .posting import delivery_of
from .time_limit import check_abandoned


class LeaseLostError(InturnError):
    """The session's lease was lost while a reply was streamed; whoever has it now makes the reply anew."""

    retryable = True


def respond(
    agent: Agent, payload: RespondPayload, asked: Asked, lease: Lease, replies: Sequence[OpenReply]
) -> Response:
    """Have the message answered, and stop where somebody asks for it: what was said until then is the reply.

    `replies` are the streams to write it to. Where there is one and the lease was lost, `LeaseLostError` is
    raised at once: nobody can read the rest, and the store would take it only if the next owner is slower.
    """

    def stopped() -> bool:
        check_abandoned()
        return lease.stop == asked.turn_id

    delivery = delivery_of(payload)
    if not replies:
        return agent.respond(
            payload.message,
            turn_id=asked.turn_id,
            metadata=payload.metadata,
            images=payload.images,
            stopped=stopped,
            delivery=delivery,
            further=asked.said,
        )
    with agent.stream(
        payload.message,
        turn_id=asked.turn_id,
        metadata=payload.metadata,
        images=payload.images,
        stopped=stopped,
        delivery=delivery,
        further=asked.said,
    ) as stream:
        for piece in stream:
            if lease.lost:
                raise LeaseLostError
            for reply in replies:
                reply.add(piece)
        return stream.response
