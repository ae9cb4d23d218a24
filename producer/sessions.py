"""Sessions over HTTP: where a conversation stands, what was said, and its deletion."""

from __future__ import annotations

from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Query, status

from inturn.errors import StoreError, StoreUnavailableError
from inturn.persistence import MessageQuery, Target
from inturn.session.state import SessionState

from .auth import Asks, Caller
from .descriptions import READ, problems
from .problems import Refusal, not_found
from .runtime import Runtime, Web
from .views import Messages, Session, SessionId, view_message, view_session

router = APIRouter(tags=["sessions"])
log = structlog.get_logger(__name__)

MOST_SEQUENCE = 2**53


@router.get("/sessions/{session_id}", responses=READ)
def show(session_id: SessionId, web: Web, caller: Asks) -> Session:
    """Tell where a session stands: its status, route, step, data and counts, and the turns that wait."""
    session = web.access.read(caller, session_id)
    return view_session(session_id, session, web.mailbox.queue(session_id))


@router.get("/sessions/{session_id}/messages", responses=READ)
def list_messages(
    session_id: SessionId,
    web: Web,
    caller: Asks,
    after: Annotated[
        int | None, Query(ge=0, le=MOST_SEQUENCE, description="Later than this sequence.")
    ] = None,
    before: Annotated[
        int | None, Query(ge=0, le=MOST_SEQUENCE, description="Earlier than this sequence.")
    ] = None,
    order: Annotated[Literal["oldest", "newest"], Query(description="Which come first.")] = "oldest",
    cursor: Annotated[
        str | None,
        Query(max_length=2000, description="The cursor of the page before, asked for in the same way."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Lines of the history on one page.")] = 50,
) -> Messages:
    """List what was said, page by page.

    A signed-in user sees their own messages and the agent's, so a page may have fewer than `limit`; whether
    there is another one is told by `cursor` alone.
    """
    query = MessageQuery(
        session_id=session_id, after=after, before=before, order=order, cursor=cursor, limit=limit
    )
    if web.access.read(caller, session_id) is None:
        return Messages(items=[])
    with web.store.use() as adapter:
        page = adapter.find_messages(query)
    shown = [view_message(message, whole=caller.is_trusted) for message in page.items]
    return Messages(items=[message for message in shown if message is not None], cursor=page.cursor)


@router.delete(
    "/sessions/{session_id}", status_code=status.HTTP_204_NO_CONTENT, responses={**READ, **problems(409)}
)
def delete(session_id: SessionId, web: Web, caller: Asks) -> None:
    """Delete a session with all that was said in it.

    409 while a turn of it runs or waits, or a reply is on its way out: stop them first, or wait. A turn that
    is accepted while the session is deleted runs after that, as the first one of a new session.
    """
    session, is_readable = _read(session_id, web, caller)
    if (session is None and is_readable) or web.mailbox.waiting([session_id]):
        raise _busy("turns of it run or wait; stop them first (DELETE /turns/{id})")
    if web.deliveries.mailbox.waiting([session_id]):
        raise _busy("a reply of it is on its way out; repeat the request in a moment")
    # The ID stays its user's: the results of its turns can still be asked for by whoever has the session.
    if session is None:
        web.access.reserve_unread(session_id)
    else:
        web.access.reserve(session_id, session.user_id)
    # Bound to the version that was seen: a turn that has been committed since is not deleted unseen.
    with web.store.use() as adapter:
        gone = adapter.delete_sessions([Target(session_id, None if session is None else session.version)])
    if not gone:
        if web.access.read(caller, session_id) is None:
            raise not_found("session")
        raise _busy("it was changed just now; repeat the request")
    web.dead_letters.remove_session(session_id)
    log.info("session deleted", session_id=session_id)


def _read(session_id: str, web: Runtime, caller: Caller) -> tuple[SessionState | None, bool]:
    """The session, and whether it can be read: to erase what cannot must take no key."""
    try:
        return web.access.read(caller, session_id), True
    except StoreUnavailableError:
        raise
    except StoreError:
        if not caller.is_trusted:
            raise  # nobody knows whose it is
        return None, False


def _busy(why: str) -> Refusal:
    return Refusal(409, "session-busy", f"the session is not deleted: {why}")
