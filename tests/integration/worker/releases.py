"""Agents of three releases, for workers that run side by side: `name` became `first` and `last`."""

from __future__ import annotations

from inturn.agent import Agent
from inturn.agent.scripted import ScriptedProvider
from inturn.session import SessionState


def migrate(session: SessionState, version: int | None) -> SessionState:
    """Split the name."""
    session.data["first"], session.data["last"] = session.data.pop("name").split()
    return session


def cannot(session: SessionState, version: int | None) -> SessionState:
    """Fail, and quote the user."""
    raise ValueError(f"cannot parse {session.data['name']}")


def answer(release: str) -> ScriptedProvider:
    """Say which release it is."""
    return ScriptedProvider(lambda request: f"this is {release}")


old = Agent("Registry", provider=answer("the old one"), schema_version=1)
new = Agent("Registry", provider=answer("the new one"), schema_version=2, migrate_session=migrate)
broken = Agent("Registry", provider=answer("a broken one"), schema_version=2, migrate_session=cannot)
