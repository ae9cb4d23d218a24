"""`inturn db`: the schema of the database, brought up to date and looked at."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape

from inturn.accepting import open_inbox
from inturn.persistence.schema import SchemaState, current, upgrade
from inturn.settings import load_settings


def run_upgrade(*, as_json: bool) -> int:
    """Bring the schema up to date; returns the exit code."""
    state = upgrade(_url())
    inbox = open_inbox(load_settings())
    if inbox is not None:
        inbox.initialize()
        inbox.close()
    _print(state, f"the schema is at revision {state.revision}, the newest", as_json=as_json)
    return 0


def run_current(*, as_json: bool) -> int:
    """Print where the schema is; returns the exit code."""
    state = current(_url())
    if state.revision is not None:
        words = f"revision {state.revision}"
    elif state.missing:
        words = "no revision: the schema was not made by inturn, or is older than its migrations"
    else:
        words = "no revision, but complete: an adapter has created the tables"
    _print(state, f"{words}; the newest is {state.head}", as_json=as_json)
    return 0


def run_check(*, as_json: bool) -> int:
    """Print what is missing; returns the exit code: 1 if anything is."""
    state = current(_url())
    if state.is_complete:
        _print(state, "the schema is complete", as_json=as_json)
        return 0
    faults = list(state.missing)
    if state.revision not in (None, state.head):
        faults.append(f"it is at revision {state.revision}, and the newest is {state.head}")
    lines = [*faults, "mend it with `inturn db upgrade`"]
    _print(state, "\n".join(lines), as_json=as_json, colour="red")
    return 1


def _url() -> str:
    return load_settings().database_url.get_secret_value()


def _print(state: SchemaState, words: str, *, as_json: bool, colour: str = "default") -> None:
    if as_json:
        json.dump({"complete": state.is_complete, **asdict(state)}, sys.stdout)
        sys.stdout.write("\n")
    else:
        Console(highlight=False).print(f"[{colour}]{escape(words)}[/]", soft_wrap=True)
