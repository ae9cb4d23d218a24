"""Adapters around adapters: whatever a store learns to do goes through those that watch over it."""

from __future__ import annotations

import pytest

from inturn.errors import StoreError
from inturn.keyring import KeyRing
from inturn.persistence import (
    ArchivingAdapter,
    AuditedAdapter,
    EncryptedAdapter,
    MemoryAdapter,
    PersistenceAdapter,
)
from inturn.persistence.guarded import GuardedAdapter
from inturn.persistence.opening import layer_of
from inturn.persistence.wrapping import WrappingAdapter

PRIMITIVES = {name for name, each in vars(WrappingAdapter).items() if callable(each) and name[0] != "_"}
"""All that a wrapper hands on."""
NO_CONTENT = {"initialize", "close", "ping"}


def test_it_hands_on_every_primitive_that_there_is() -> None:
    asked_of_a_store = {
        name for name, each in vars(PersistenceAdapter).items() if callable(each) and name[0] != "_"
    }

    assert asked_of_a_store == PRIMITIVES


@pytest.mark.parametrize(
    ("kind", "handed_on"),
    [
        (AuditedAdapter, NO_CONTENT),
        (EncryptedAdapter, {*NO_CONTENT, "delete_sessions", "find_turns", "recorded", "rewrite"}),
    ],
)
def test_what_records_or_seals_sees_all_that_may_have_content(
    kind: type[WrappingAdapter], handed_on: set[str]
) -> None:
    assert PRIMITIVES - vars(kind).keys() <= handed_on


def test_what_a_wrapper_cannot_do_does_not_reach_the_store() -> None:
    for wrapper in (
        EncryptedAdapter(MemoryAdapter(), KeyRing({"k": b"1" * 32})),
        GuardedAdapter(EncryptedAdapter(MemoryAdapter(), KeyRing({}))),
        ArchivingAdapter(MemoryAdapter(), MemoryAdapter()),
    ):
        assert not wrapper.supports_rewriting
        with pytest.raises(StoreError, match="cannot change in place"):
            wrapper.rewrite()
        with pytest.raises(StoreError, match="cannot change in place"):
            wrapper.find_turns("s")


def test_a_layer_is_found_beneath_an_archive_too() -> None:
    hot = EncryptedAdapter(MemoryAdapter(), KeyRing({}))

    assert layer_of(GuardedAdapter(ArchivingAdapter(hot, MemoryAdapter())), EncryptedAdapter) is hot
