"""`inturn audit`: whether the audit log is whole, and what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inturn.audit.reading import Anchor, read_audit_log, verify_audit_log
from inturn.cli.ages import read_age
from inturn.cli.exits import DONE
from inturn.cli.local import local_settings
from inturn.cli.output import bar, out, print_json
from inturn.cli.text import plain
from inturn.errors import ConfigurationError
from inturn.session.state import utcnow


def run_verify(directory: Path | None, anchor: Path | None, *, as_json: bool) -> int:
    """Check the log and print its heads. Returns the exit code."""
    console = out()
    key = local_settings().audit_key
    with bar("verifying", "bytes") as watch:
        found = verify_audit_log(
            _directory(directory),
            key=None if key is None else key.get_secret_value(),
            anchors=None if anchor is None else _read_anchors(anchor),
            on_progress=watch,
        )
    if as_json:
        answer = {
            "ok": not found.broken,
            "heads": {chain: head._asdict() for chain, head in found.heads.items()},
            "broken": [broken._asdict() for broken in found.broken],
            "torn": found.torn,
        }
        print_json(answer)
        return int(bool(found.broken))
    for chain, head in found.heads.items():
        console.print(plain(f"{head.head}  {chain} ({head.records} records)"))
    for name in found.torn:
        console.print(plain(f"{name} ends within a record, as a crash leaves it"), style="yellow")
    for broken in found.broken:
        console.print(plain(str(broken)), style="red")
    if not found.broken:
        console.print(f"whole: {found.records} records in {len(found.heads)} chains", style="green")
    return int(bool(found.broken))


def run_show(
    session: str | None, user: str | None, since: str | None, directory: Path | None, *, as_json: bool
) -> int:
    """Print records. Returns the exit code."""
    console = out()
    start = None if since is None else utcnow() - read_age(since)
    for record in read_audit_log(_directory(directory), session_id=session, user_id=user, since=start):
        if as_json:
            print_json(record)
        else:
            console.print(plain(_line(record)))
    return DONE


def _directory(given: Path | None) -> Path:
    directory = given or local_settings().audit_log
    if directory is None:
        raise ConfigurationError(
            "there is no audit log: name its directory in INTURN_AUDIT_LOG, or with --dir"
        )
    return directory


def _read_anchors(path: Path) -> dict[str, Anchor]:
    try:
        heads: dict[str, dict[str, Any]] = json.loads(path.read_text())["heads"]
        return {chain: Anchor(int(head["records"]), str(head["head"])) for chain, head in heads.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(
            f"{str(path)!r} is not what `inturn audit verify --json` prints ({type(error).__name__})"
        ) from None


def _line(record: dict[str, Any]) -> str:
    sessions = record.get("sessions", [])
    which = ", ".join(sessions[:3]) + (f" and {len(sessions) - 3} more" if len(sessions) > 3 else "")
    said = {name: record.get(name) for name in ("user", "turn", "outcome")}
    more = " ".join(f"{name}={value}" for name, value in said.items() if value is not None)
    return f"{record['at']}  {record.get('actor', '?'):24}  {record['action']:7}  {which}  {more}".rstrip()
