"""`inturn db`: the schema of the database, brought up to date and looked at."""

from __future__ import annotations

from dataclasses import asdict

from inturn.accepting import open_inbox
from inturn.cli.exits import DONE, FAILED
from inturn.cli.local import local_settings
from inturn.cli.output import out, print_json, spinner
from inturn.cli.text import plain
from inturn.persistence.schema import SchemaState, current, upgrade


def run_upgrade(*, as_json: bool) -> int:
    """Bring the schema up to date; returns the exit code."""
    settings = local_settings()
    with spinner("bringing the schema up to date"):
        state = upgrade(settings.database_url.get_secret_value())
        inbox = open_inbox(settings)
        if inbox is not None:
            inbox.initialize()
            inbox.close()
    _print(state, f"the schema is at revision {state.revision}, the newest", as_json=as_json)
    return DONE


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
    return DONE


def run_check(*, as_json: bool) -> int:
    """Print what is missing; returns the exit code: 1 if anything is."""
    state = current(_url())
    if state.is_complete:
        _print(state, "the schema is complete", as_json=as_json)
        return DONE
    faults = list(state.missing)
    if state.revision not in (None, state.head):
        faults.append(f"it is at revision {state.revision}, and the newest is {state.head}")
    lines = [*faults, "mend it with `inturn db upgrade`"]
    _print(state, "\n".join(lines), as_json=as_json, colour="red")
    return FAILED


def _url() -> str:
    return local_settings().database_url.get_secret_value()


def _print(state: SchemaState, words: str, *, as_json: bool, colour: str = "default") -> None:
    if as_json:
        print_json({"complete": state.is_complete, **asdict(state)})
    else:
        out().print(plain(words, lines=True), style=colour)
