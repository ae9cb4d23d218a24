"""`inturn keys`: make a key, seal everything with the newest one, see which are in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape
from rich.table import Table

from inturn.cli.exits import DONE, FAILED
from inturn.cli.local import local_settings
from inturn.cli.output import bar, fail, out, print_json, print_table
from inturn.cli.text import plain
from inturn.errors import StoreError
from inturn.keyring import KeyRing, create_key
from inturn.persistence import PersistenceAdapter, SessionQuery, open_adapter
from inturn.persistence.adapter import MAX_PAGE
from inturn.persistence.rotation import KeyUse, Kind, count_keys, rotate
from inturn.session.state import utcnow
from inturn.settings import Settings

KINDS: tuple[Kind, ...] = ("sessions", "messages", "turns")


def run_new(key_id: str | None, *, as_json: bool) -> int:
    """Print a new key; returns the exit code."""
    key = create_key(key_id or utcnow().strftime("%Y-%m-%d"))
    if as_json:
        print_json({"id": key.partition(":")[0], "key": key})
    else:
        out().print(plain(key))
    return DONE


def run_rotate(*, as_json: bool) -> int:
    """Seal everything with the newest key; returns the exit code: 1 if something could not be opened."""
    settings = local_settings()
    keys = KeyRing.read(settings.encryption_keys)
    with _store(settings) as store, _progress("sealing anew", store) as watch:
        done = rotate(store, keys, watch=watch, tell=_tell)
    if as_json:
        told = {"sessions": done.sessions, "rewritten": done.rewritten, "unreadable": done.unreadable}
        print_json(told)
    else:
        words = f"{done.rewritten} rows of {done.sessions} sessions were sealed with key {keys.ids[0]}"
        if done.unreadable:
            words += (
                f"; {done.unreadable} sessions hold what none of the keys opens: "
                "`inturn keys status` names the keys that are missing"
            )
        out().print(plain(words))
    return FAILED if done.unreadable else DONE


def run_status(*, as_json: bool) -> int:
    """Print how much each key has sealed; returns the exit code: 1 if a key is missing, or a row damaged."""
    settings = local_settings()
    keys = KeyRing.read(settings.encryption_keys)
    with _store(settings) as store, _progress("counting", store) as watch:
        use = count_keys(store, watch=watch)
        counts_turns = store.supports_rewriting
    missing = [key_id for key_id in use.counts if key_id is not None and key_id not in keys.ids]
    certain = counts_turns and not use.unreadable
    unused = [key_id for key_id in keys.ids[1:] if not use.of(key_id)] if certain else []
    if as_json:
        told = {
            "keys": {key_id: _counts(use, key_id) for key_id in [*keys.ids, *missing]},
            "plain": _counts(use, None),
            "missing": missing,
            "removable": unused,
            "unreadable": use.unreadable,
        }
        print_json(told)
    else:
        _print(keys, use, missing, unused, counts_turns=counts_turns)
    return FAILED if missing or use.unreadable else DONE


def _tell(session_id: str, error: StoreError) -> None:
    fail(f"session {session_id!r}: {error}")


def _print(keys: KeyRing, use: KeyUse, missing: list[str], unused: list[str], *, counts_turns: bool) -> None:
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
    print_table(table)
    console = out()
    for key_id in missing:
        console.print(
            f"[red]key {escape(key_id)} is missing:[/] put it back into INTURN_ENCRYPTION_KEYS, behind the "
            "newest; until then what it has sealed cannot be read"
        )
    for session_id in use.unreadable:
        console.print(plain(f"session {session_id} is damaged: it is not counted"), style="red")
    if not counts_turns:
        console.print("turns are not counted in this store: remove no key")
    elif keys and sum(use.of(key_id) for key_id in use.counts) > use.of(keys.ids[0]):
        console.print("`inturn keys rotate` seals all of it with the first key")
    elif unused:
        console.print("nothing here uses the keys that may be removed; backups of the database may")


def _counts(use: KeyUse, key_id: str | None) -> dict[str, int]:
    counted = use.counts.get(key_id, Counter())
    return {kind: counted[kind] for kind in KINDS}


def _store(settings: Settings) -> PersistenceAdapter:
    """The store as it is, with nothing opened."""
    return open_adapter(settings.database_url.get_secret_value(), pool_size=1)


@contextmanager
def _progress(words: str, store: PersistenceAdapter) -> Iterator[Callable[[int], None]]:
    """Show a bar of sessions while the block runs; it gives the function to call with how many are done."""
    with bar(words, "sessions") as watch:
        total, cursor = 0, None
        while True:
            page = store.find_sessions(
                SessionQuery(order="oldest", cursor=cursor, limit=MAX_PAGE, unreadable=True)
            )
            total, cursor = total + len(page.items), page.cursor
            if cursor is None:
                break
        watch(0, total)
        yield lambda done: watch(done, total)
