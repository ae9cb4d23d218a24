"""Files: what pages are made of, as it is sent to browsers."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import Request, Response, status

from .problems import not_found

_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Files:
    """The files of one directory, read once."""

    def __init__(self, directory: Path) -> None:
        self._contents = {path.name: path.read_bytes() for path in directory.iterdir()}

    def answer(self, request: Request, name: str, headers: dict[str, str] | None = None) -> Response:
        """Send a file, with these headers; raises `Refusal` with 404 if there is none of this name."""
        if name not in self._contents:
            raise not_found("file")
        content = self._contents[name]
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        # Asked for each time, and sent only when it has changed: all parts are of one release.
        headers = {"Cache-Control": "no-cache", "ETag": tag, **(headers or {})}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
        return Response(content, media_type=_TYPES[Path(name).suffix], headers=headers)
