"""Budget: how much of the model may be used is somebody else's to say; they are asked and told here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from inturn.contract import Usage


class TurnBudget(Protocol):
    """What one turn may use of the model. An object serves one turn, in one thread at a time."""

    def before_call(self) -> None:
        """Called before each call of the model; raises `ModelBudgetError` if the turn is to be taken later.

        A turn that has made a call goes on to its end: what it does in vain would cost more.
        """
        ...

    def after_call(self, usage: Usage, error: BaseException | None) -> None:
        """Called after each call, with what it has used, about, and what it has raised; raises nothing."""
        ...


def _one_call() -> Usage:
    return Usage(calls=1)


@dataclass
class Bill:
    """What a call has used: `usage` if the provider has said it, else what `guess` says."""

    usage: Usage | None = None
    guess: Callable[[], Usage] = field(default=_one_call)


@contextmanager
def billed(budget: TurnBudget | None) -> Iterator[Bill]:
    """Around a call of the model: asks whether it may be made, and tells what it has used."""
    bill = Bill()
    if budget is None:
        yield bill
        return
    budget.before_call()
    try:
        yield bill
    except BaseException as error:
        budget.after_call(bill.usage or bill.guess(), error)
        raise
    budget.after_call(bill.usage or bill.guess(), None)
