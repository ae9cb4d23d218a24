"""Descriptions: what OpenAPI is told of the API as a whole, and of what may go wrong."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from .problems import Problem

_MEANINGS = {
    400: "The body is not JSON",
    401: "Neither a known API key nor a valid token",
    403: "Not for this caller",
    404: "Not there, or somebody else's",
    409: "Not in this state",
    413: "Too many bytes",
    415: "Not JSON by its Content-Type",
    422: "A value is refused",
    429: "Too many requests, or too many turns waiting; `Retry-After` says when to try again",
    503: "Redis or the database is away; `Retry-After` says when to try again",
}

DESCRIPTION = """
Turns of chat agents. IDs in paths are percent-encoded, a slash in them too. Times are in UTC.

Whatever goes wrong is answered as `application/problem+json` (RFC 9457); go by `type`, which does not change.
"""


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a path that may answer with these problems."""
    return {code: {"model": Problem, "description": _MEANINGS[code]} for code in codes}


READ = problems(401, 403, 404, 422, 429, 503)
"""What may go wrong with any question about a session or a turn."""
WRITE = problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503)


def describe(app: FastAPI) -> None:
    """Make the application's description say of which type problems are."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
            )
            for path in schema["paths"].values():
                for operation in path.values():
                    for code, response in operation["responses"].items():
                        content = response.get("content", {})
                        if code >= "400" and "application/json" in content:
                            content["application/problem+json"] = content.pop("application/json")
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
