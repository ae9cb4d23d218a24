"""Streaming: the agent's reply to one message, its text written to the turn's stream as it comes."""

from __future__ import annotations

from inturn.agent import Agent
from inturn.contract import RespondPayload, Response
from inturn.errors import InturnError
from inturn.turns import Lease, OpenReply


class LeaseLostError(InturnError):
    """The session's lease was lost while a reply was streamed; whoever has it now makes the reply anew."""

    retryable = True


def respond(agent: Agent, payload: RespondPayload, lease: Lease, turn_id: str, reply: OpenReply) -> Response:
    """Have the message answered, and stop where somebody asks for it: what was said until then is the reply.

    Where a stream is wanted and the lease was lost, `LeaseLostError` is raised at once: nobody can read the
    rest, and the store would take it only if the next owner is slower.
    """

    def stopped() -> bool:
        return lease.stop == turn_id

    if not payload.stream:
        return agent.respond(
            payload.message,
            turn_id=turn_id,
            metadata=payload.metadata,
            images=payload.images,
            stopped=stopped,
        )
    with agent.stream(
        payload.message, turn_id=turn_id, metadata=payload.metadata, images=payload.images, stopped=stopped
    ) as stream:
        for piece in stream:
            if lease.lost:
                raise LeaseLostError
            reply.add(piece)
        return stream.response
