"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object a line instead of text.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without a question.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count only, and change nothing.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="A file, for you alone to read; else standard output."
    ),
]

Session = Annotated[str, typer.Argument(help="The session's ID.", metavar="SESSION", show_default=False)]
Sessions = Annotated[
    list[str], typer.Argument(help="IDs of sessions.", metavar="SESSION", show_default=False)
]
Turn = Annotated[str, typer.Argument(help="The turn's ID.", metavar="TURN", show_default=False)]
User = Annotated[str, typer.Argument(help="The user's ID.", metavar="USER", show_default=False)]
OfSession = Annotated[str | None, typer.Option("--session", metavar="ID", help="Those of this session.")]
ItsSession = Annotated[
    str | None, typer.Option("--session", help="The turn's session, where its ID names none.")
]
