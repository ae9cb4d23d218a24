"""Layout: how typer's help shows our commands: paragraphs flow, and a flag has no type beside it."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose docstring is wrapped to the terminal, as its first paragraph is by typer itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.help = flowing(self.help)

    def get_params(self, ctx: Any) -> Any:
        """The parameters, with what stands for their values in the help."""
        return _named(super().get_params(ctx))


class Group(TyperGroup):
    """The same for a group of commands."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, with what stands for their values in the help."""
        return _named(super().get_params(ctx))


def flowing(text: str | None) -> str | None:
    """Text with each paragraph on one line."""
    if text is None:
        return None
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _nothing(*, ctx: Any) -> None:
    """All arguments are text, and `<str>` beside them says nothing."""


def _named(params: Any) -> Any:
    for param in params:
        if param.param_type_name == "option" and param.metavar is None:
            if getattr(param, "is_flag", False):
                param.metavar = ""
            elif not param.type_descriptor.is_choice:
                param.metavar = param.name.upper()
        elif param.param_type_name == "argument":
            param.display_type_rich = _nothing
    return params
