"""Channels over HTTP: the webhooks of the platforms whose users talk to the agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import APIRouter, BackgroundTasks, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from inturn import channels
from inturn.channels import Channel, Received
from inturn.errors import ForgedRequestError, InvalidInputError

from .problems import Refusal, not_found
from .runtime import Runtime, Web

log = structlog.get_logger(__name__)

router = APIRouter()


@router.post("/channels/{name}", include_in_schema=False)
async def receive(name: str, request: Request, web: Web, background: BackgroundTasks) -> Response:
    """Take a webhook: it is answered once its messages are safely in their mailboxes.

    413: too large. 401: the platform has not sent it. 400: it cannot be read. 429 and 503, with
    `Retry-After`: it is to be sent again, which adds nothing twice.
    """
    channel = web.channels.get(name)
    if channel is None:
        raise not_found("channel")
    webhook = channels.Request(
        request.method,
        _public_url(web, request),
        _headers(request),
        await _read(request, channel.limits.body),
    )
    received = await run_in_threadpool(_take, web, channel, webhook, background)
    answer = received.answer
    return Response(answer.body, answer.status, media_type=answer.content_type)


def _take(web: Runtime, channel: Channel, webhook: channels.Request, background: BackgroundTasks) -> Received:
    try:
        channel.verify(webhook)
    except ForgedRequestError as error:
        # Why, is for us to know and not for whoever tries.
        log.warning("webhook refused", channel=channel.name, reason=str(error))
        raise Refusal(401, "forged-request", "the platform has not sent this, or not just now") from None
    refusal: InvalidInputError | None = None
    try:
        received = channel.receive(webhook)
    except InvalidInputError as error:
        raise _malformed(channel, error) from None
    for change in received.changes:
        try:
            web.client.save_session(
                change.session_id, metadata=change.metadata, user_id=change.user_id, turn_id=change.turn_id
            )
        except InvalidInputError as error:
            refusal = error
    for message in received.messages:
        if not message.begins and not web.access.is_known(message.session_id):
            continue
        try:
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
        except InvalidInputError as error:
            refusal = error  # the others are taken: they would not come again without it
        else:
            if handle.accepted:
                background.add_task(_tell_accepted, channel, message.address)
    if refusal is not None:
        raise _malformed(channel, refusal)
    return received


def _malformed(channel: Channel, error: InvalidInputError) -> Refusal:
    log.warning("webhook refused", channel=channel.name, reason=str(error))
    return Refusal(400, "malformed-request", str(error))


def _tell_accepted(channel: Channel, address: Mapping[str, Any]) -> None:
    try:
        channel.accepted(address)
    except Exception as error:
        log.warning("a channel failed after a webhook", channel=channel.name, error=type(error).__name__)


async def _read(request: Request, most: int) -> bytes:
    too_large = Refusal(413, "content-too-large", f"a webhook may have {most} bytes", {"Connection": "close"})
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
