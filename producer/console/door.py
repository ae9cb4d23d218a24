"""Door: who is signed in, whether a form is our own, and the pages where one signs in and out."""

from __future__ import annotations

import hmac
import re
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from inturn.audit import act_as

from ..auth import Caller
from ..problems import Refusal
from ..runtime import Runtime, Web
from .pages import LONGEST_NEXT, PREFIX, ConsoleRoute, SignInNeeded, answer, base_of, go_to
from .sign_ins import SIGN_IN_SECONDS, Operator

router = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=ConsoleRoute)
log = structlog.get_logger(__name__)


async def _operator(request: Request) -> Operator:
    web: Runtime = request.app.state.runtime
    token = request.cookies.get(_cookie(web, request))
    operator = None if token is None else await run_in_threadpool(web.desk.sign_ins.find, token)
    if operator is None:
        raise SignInNeeded
    act_as(f"console:{operator.name}")
    request.state.operator = operator
    return operator


Signed = Annotated[Operator, Depends(_operator)]
"""The operator who asks; whoever is not signed in is sent where one signs in."""


async def _acting(
    request: Request, operator: Signed, csrf: Annotated[str, Form(max_length=100)] = ""
) -> Caller:
    _check_origin(request)
    if not hmac.compare_digest(csrf.encode(errors="replace"), operator.csrf.encode()):
        raise Refusal(
            403, "forged-request", "this form is not of the page that you are signed in with; load it anew"
        )
    return Caller(f"console:{operator.name}")


Acts = Annotated[Caller, Depends(_acting)]
"""The operator who sends a form of ours, as the API knows callers: trusted with everything."""


@router.get("/login")
def sign_in_page(
    request: Request, web: Web, next: Annotated[str, Query(max_length=LONGEST_NEXT)] = ""
) -> Response:
    """Where one signs in; it shows nothing else."""
    web.desk.scheme_of(request)
    return answer(request, "login.html", next=_inside(request, next), wrong=False)


@router.post("/login")
def sign_in(
    request: Request,
    web: Web,
    name: Annotated[str, Form(max_length=200)] = "",
    password: Annotated[str, Form(max_length=1000)] = "",
    next: Annotated[str, Form(max_length=LONGEST_NEXT)] = "",
) -> Response:
    """Sign in: a cookie for this browser, which no script can read and no other site can send."""
    _check_origin(request)
    address = "" if request.client is None else request.client.host
    token = web.desk.sign_ins.open(name.strip(), password, address)
    if token is None:
        log.warning("console: a password was refused")  # and not the name: it may be the password
        return answer(request, "login.html", 401, next=_inside(request, next), wrong=True)
    log.info("console: signed in", operator=name.strip())
    cookie = _cookie(web, request)
    if (before := request.cookies.get(cookie)) is not None:
        web.desk.sign_ins.close(before)
    response = go_to(_inside(request, next) or base_of(request))
    response.set_cookie(
        cookie,
        token,
        max_age=SIGN_IN_SECONDS,
        path="/",
        secure=_is_https(web, request),
        httponly=True,
        samesite="strict",
    )
    return response


@router.post("/logout")
def sign_out(request: Request, web: Web, _: Acts) -> Response:
    """Sign out, here and now."""
    cookie = _cookie(web, request)
    web.desk.sign_ins.close(request.cookies[cookie])
    response = go_to(f"{base_of(request)}/login")
    response.delete_cookie(cookie, path="/", secure=_is_https(web, request), httponly=True, samesite="strict")
    return response


def _check_origin(request: Request) -> None:
    """A browser says of each form from which site it was sent."""
    web: Runtime = request.app.state.runtime
    if request.headers.get("origin") not in web.desk.origins_of(request):
        raise Refusal(
            403,
            "forged-request",
            "the form was sent from another site, or your proxy changes the Host; "
            "set INTURN_PUBLIC_URL to the address at which browsers reach it",
        )


def _is_https(web: Runtime, request: Request) -> bool:
    return web.desk.scheme_of(request) == "https"


def _cookie(web: Runtime, request: Request) -> str:
    # Of this name browsers take no cookie from other hosts of the domain, nor over plain HTTP.
    return "__Host-inturn-console" if _is_https(web, request) else "inturn-console"


def _inside(request: Request, address: str) -> str:
    """The address, if it is a page of the console, as it can stand in a header; else nothing."""
    base = re.escape(base_of(request))
    return address if re.fullmatch(rf"{base}([/?][!-\[\]-~]*)?", address) else ""
