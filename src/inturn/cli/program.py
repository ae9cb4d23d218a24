"""Program: the command as a whole: whatever ends it is one line, with an exit code that means the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from inturn.cli import exits
from inturn.cli.layout import Group
from inturn.errors import InturnError


class Program(Group):
    """Runs a command, which returns its exit code.

    Errors of ours and files that cannot be used are one line on standard error, and so is wrong use. Ctrl-C
    and a closed pipe end it without a word (typer sees to Ctrl-C).
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run it and end the process."""
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
            code = int(code or exits.DONE)
        except typer.TyperException as error:
            code = _explain(error)
        except typer.Abort:
            code = exits.INTERRUPTED
        if not standalone_mode:
            return code
        sys.exit(code)

    def invoke(self, ctx: Any) -> Any:
        """Run it and return its exit code; wrong use is raised."""
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # What is buffered still would fail once more at the end of the process.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return exits.CLOSED_PIPE
        except InturnError as error:
            from inturn.cli.output import fail

            fail(error)
            return exits.code_of(error)
        except OSError as error:
            if error.filename is None:
                raise
            from inturn.cli.output import fail

            fail(f"{error.filename}: {error.strerror}")
            return exits.WRONG
        return code


def _explain(error: typer.TyperException) -> int:
    from inturn.cli.output import fail

    context: Any = getattr(error, "ctx", None)
    message = error.format_message()
    if context is None:
        fail(message)
    elif not message.strip() or type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(context.get_help(), err=True)
    else:
        message = message[0].lower() + message[1:].rstrip(".")
        fail(f"{message}; `{context.command_path} --help` shows what there is")
    return exits.WRONG
