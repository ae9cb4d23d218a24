"""Channels over HTTP: the webhooks of the platforms whose users talk to the agent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog
from fastapi import APIRouter, BackgroundTasks, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from inturn import channels
from inturn.audit import act_as
from inturn.channels import Answer, Channel, Incoming
from inturn.errors import ForgedRequestError, InturnError, InvalidInputError, SessionBusyError

from .problems import Refusal, kind_of, not_found
from .runtime import Runtime, Web
from .teller import Teller

log = structlog.get_logger(__name__)

router = APIRouter()

_TOO_LONG = "Your message is too long: it may have {:,} characters. Please write a shorter one."
_BUSY = "Your last message is still being answered. Please send this one again after that."
_NOT_VALID = "Your message cannot be read. Please write it in another way."


@router.post("/channels/{name}", include_in_schema=False)
async def receive(name: str, request: Request, web: Web, background: BackgroundTasks) -> Response:
    """Take a webhook: it is answered once its messages are safely in their mailboxes.

    413: too large. 401: the platform has not sent it. 400: it cannot be read. 429 and 503, with
    `Retry-After`: it is to be sent again, which adds nothing twice. A message that would never be taken is
    answered as the others are, lest it come again and again; its user is told.
    """
    channel = web.channels.get(name)
    if channel is None:
        raise not_found("channel")
    webhook = channels.Request(
        request.method,
        _public_url(web, request),
        _headers(request),
        await _read(request, channel),
    )
    teller: Teller = request.app.state.teller

    def later(call: Callable[[], None]) -> None:
        background.add_task(teller.tell, channel, call)

    act_as(f"channel:{channel.name}")
    answer = await run_in_threadpool(_take, web, channel, webhook, later)
    return Response(answer.body, answer.status, media_type=answer.content_type)


def _take(
    web: Runtime, channel: Channel, webhook: channels.Request, later: Callable[[Callable[[], None]], None]
) -> Answer:
    try:
        channel.verify(webhook)
    except ForgedRequestError as error:
        # Why, is for us to know and not for whoever tries.
        log.warning("webhook refused", channel=channel.name, reason=str(error))
        raise Refusal(401, "forged-request", "the platform has not sent this, or not just now") from None
    try:
        received = channel.receive(webhook)
    except InvalidInputError as error:
        log.warning("webhook refused", channel=channel.name, reason=str(error))
        raise Refusal(400, "malformed-request", str(error), channel.final) from None
    for change in received.changes:
        try:
            web.client.save_session(
                change.session_id, metadata=change.metadata, user_id=change.user_id, turn_id=change.turn_id
            )
        except InvalidInputError as error:
            _note(web, channel, error)
    answer = received.answer
    for message in received.messages:
        if not message.begins and not web.access.is_known(message.session_id):
            continue
        try:
            is_new = _accept(web, channel, message)
        except (InvalidInputError, SessionBusyError) as error:
            # The others are taken: they would not come again without it.
            _note(web, channel, error)
            words = _words(web, message, error)
            if received.refused is not None:
                answer = received.refused(words)
            else:
                later(partial(channel.refused, message, words))
        else:
            if is_new:
                later(partial(channel.accepted, message.address))
    return answer


def _accept(web: Runtime, channel: Channel, message: Incoming) -> bool:
    """Enqueue a message; returns whether it is new."""
    handle = web.client.respond(
        message.session_id,
        message.message,
        turn_id=message.turn_id,
        user_id=message.user_id,
        channel=channel.name,
        address=message.address,
        images=message.images,
        metadata=message.metadata,
    )
    web.note_accepted(handle, channel.name)
    return handle.accepted


def _note(web: Runtime, channel: Channel, error: InturnError) -> None:
    """Tell of a message that is refused for good; the request itself is not, so nobody else does."""
    log.warning("message of a webhook refused", channel=channel.name, reason=str(error))
    web.metrics.refused.labels(kind_of(error)).inc()


def _words(web: Runtime, message: Incoming, error: InturnError) -> str:
    """What the user is told; why in detail is for whoever runs this."""
    if isinstance(error, SessionBusyError):
        return _BUSY
    most = web.settings.max_message_chars
    return _TOO_LONG.format(most) if len(str(message.message)) > most else _NOT_VALID


async def _read(request: Request, channel: Channel) -> bytes:
    most = channel.limits.body
    headers = {"Connection": "close", **channel.final}
    too_large = Refusal(413, "content-too-large", f"a webhook may have {most} bytes", headers)
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                raise too_large
            chunks.append(chunk)
    except ClientDisconnect:
        raise Refusal(400, "disconnected", "the webhook broke off") from None
    return b"".join(chunks)


def _public_url(web: Runtime, request: Request) -> str:
    """The URL that the sender called, byte for byte: some platforms sign it."""
    scope = request.scope
    here = web.settings.public_url or f"{request.url.scheme}://{request.url.netloc}"
    path: bytes = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0]
    query: bytes = scope["query_string"]
    return here.rstrip("/") + (path + b"?" + query if query else path).decode("latin-1")


def _headers(request: Request) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
