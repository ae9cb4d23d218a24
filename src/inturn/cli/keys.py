"""`inturn keys`: make a key, seal everything with the newest one, see which are in use."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from inturn.cli.local import local_settings
from inturn.errors import EncryptionKeyError
from inturn.keyring import KeyRing, create_key
from inturn.persistence import PersistenceAdapter, SessionQuery, open_adapter
from inturn.persistence.adapter import MAX_PAGE
from inturn.persistence.rotation import KeyUse, Kind, count_keys, rotate
from inturn.session.state import utcnow
from inturn.settings import Settings

KINDS: tuple[Kind, ...] = ("sessions", "messages", "turns")


def run_new(key_id: str | None) -> int:
    """Print a new key; returns the exit code."""
    sys.stdout.write(f"{create_key(key_id or utcnow().strftime('%Y-%m-%d'))}\n")
    return 0


def run_rotate(*, as_json: bool) -> int:
    """Seal everything with the newest key; returns the exit code: 1 if something could not be opened."""
    settings = local_settings()
    keys = KeyRing.read(settings.encryption_keys)
    with _store(settings) as store, _progress("sealing anew", store) as watch:
        done = rotate(store, keys, watch=watch, tell=_tell)
    if as_json:
        told = {"sessions": done.sessions, "rewritten": done.rewritten, "unreadable": done.unreadable}
        sys.stdout.write(f"{json.dumps(told)}\n")
    else:
        words = f"{done.rewritten} rows of {done.sessions} sessions were sealed with key {keys.ids[0]}"
        if done.unreadable:
            words += (
                f"; {done.unreadable} sessions hold what none of the keys opens: "
                "`inturn keys status` names the keys that are missing"
            )
        Console(highlight=False).print(escape(words), soft_wrap=True)
    return 1 if done.unreadable else 0


def run_status(*, as_json: bool) -> int:
    """Print how much each key has sealed; returns the exit code: 1 if a key that is used is missing."""
    settings = local_settings()
    keys = KeyRing.read(settings.encryption_keys)
    with _store(settings) as store, _progress("counting", store) as watch:
        use = count_keys(store, watch=watch)
        counts_turns = store.supports_rewriting
    missing = [key_id for key_id in use.counts if key_id is not None and key_id not in keys.ids]
    unused = [key_id for key_id in keys.ids[1:] if not use.of(key_id)] if counts_turns else []
    if as_json:
        told = {
            "keys": {key_id: _counts(use, key_id) for key_id in [*keys.ids, *missing]},
            "plain": _counts(use, None),
            "missing": missing,
            "removable": unused,
        }
        sys.stdout.write(f"{json.dumps(told)}\n")
    else:
        _print(Console(highlight=False), keys, use, missing, unused, counts_turns=counts_turns)
    return 1 if missing else 0


def _tell(error: EncryptionKeyError) -> None:
    Console(stderr=True, highlight=False).print(escape(str(error)), style="red", soft_wrap=True)


def _print(
    console: Console, keys: KeyRing, use: KeyUse, missing: list[str], unused: list[str], *, counts_turns: bool
) -> None:
    table = Table("key", *KINDS, "")
    for column in table.columns[1:4]:
        column.justify = "right"
    for number, key_id in enumerate([*keys.ids, *missing, None]):
        if key_id is None:
            name, note = "none", "not encrypted"
        elif key_id in missing:
            name, note = key_id, "[red]missing[/]"
        else:
            name, note = key_id, "seals" if number == 0 else "may be removed" if key_id in unused else ""
        table.add_row(escape(name), *(str(count) for count in _counts(use, key_id).values()), note)
    console.print(table)
    for key_id in missing:
        console.print(
            f"[red]key {escape(key_id)} is missing:[/] put it back into INTURN_ENCRYPTION_KEYS, behind the "
            "newest; until then what it has sealed cannot be read",
            soft_wrap=True,
        )
    if not counts_turns:
        console.print("turns are not counted in this store: remove no key", soft_wrap=True)
    elif keys and sum(use.of(key_id) for key_id in use.counts) > use.of(keys.ids[0]):
        console.print("`inturn keys rotate` seals all of it with the first key", soft_wrap=True)
    elif unused:
        console.print(
            "nothing here uses the keys that may be removed; backups of the database may", soft_wrap=True
        )


def _counts(use: KeyUse, key_id: str | None) -> dict[str, int]:
    counted = use.counts.get(key_id, Counter())
    return {kind: counted[kind] for kind in KINDS}


def _store(settings: Settings) -> PersistenceAdapter:
    """The store as it is, with nothing opened."""
    return open_adapter(settings.database_url.get_secret_value(), pool_size=1)


@contextmanager
def _progress(words: str, store: PersistenceAdapter) -> Iterator[Callable[[int], None]]:
    """Show a bar of sessions while the block runs; it gives the function to call with how many are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("sessions"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(words, total=None)
        total, cursor = 0, None
        while True:
            page = store.find_sessions(SessionQuery(order="oldest", cursor=cursor, limit=MAX_PAGE))
            total, cursor = total + len(page.items), page.cursor
            if cursor is None:
                break
        progress.update(task, total=total)
        yield lambda done: progress.update(task, completed=min(done, total))
