"""The public surface: names, what importing them loads, and the words of the errors."""

from __future__ import annotations

import importlib
import inspect
import pickle
import subprocess
import sys

import pytest
from celery import Celery

from inturn import errors

HEAVY = {
    "celery",
    "flower",
    "kombu",
    "openai",
    "opentelemetry",
    "prometheus_client",
    "psycopg",
    "psycopg_pool",
    "redis",
    "sqlalchemy",
}
PUBLIC = [
    "inturn",
    "inturn.agent",
    "inturn.channels",
    "inturn.errors",
    "inturn.persistence",
    "inturn.session",
    "inturn.turns",
]
MADE_OF_ARGUMENTS = {
    "EncryptionKeyError",
    "MailboxFullError",
    "OverloadedError",
    "SessionAccessError",
    "SessionBusyError",
    "SessionConflictError",
    "SessionNotFoundError",
    "TurnTimeLimitError",
}


def _loaded_by(statement: str) -> set[str]:
    script = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import inturn",
        "import inturn.persistence",
        "from inturn.channels import Channel, Incoming, Limits, Received, Request, load_channels, split_text",
        "from inturn import SessionManager, PersistenceManager, create_session",
        "from inturn.persistence import MemoryAdapter, SQLiteAdapter, open_adapter",
    ],
)
def test_importing_loads_no_driver(statement: str) -> None:
    assert _loaded_by(statement) & HEAVY == set()


@pytest.mark.parametrize("module", PUBLIC)
def test_all_is_sorted_and_every_name_can_be_imported(module: str) -> None:
    home = importlib.import_module(module)

    assert sorted(home.__all__) == list(home.__all__)
    for name in home.__all__:
        assert getattr(home, name) is not None


@pytest.mark.parametrize("module", ["inturn", "inturn.channels", "inturn.persistence", "inturn.session"])
def test_an_unknown_name_is_an_attribute_error(module: str) -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = importlib.import_module(module).Nonsense


@pytest.mark.parametrize("missing", ["psycopg", "psycopg_pool"])
def test_a_missing_driver_is_named_with_what_to_install(missing: str) -> None:
    script = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from inturn.errors import MissingDriverError\n"
        "try:\n    from inturn.persistence import PostgreSQLAdapter\n"
        "except MissingDriverError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert "PostgreSQLAdapter" in done.stdout
    assert "pip install 'psycopg[binary,pool]'" in done.stdout


def test_every_error_is_public() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == errors.__name__
    }

    assert defined == set(errors.__all__)


def test_the_tree_in_the_docstring_names_every_error() -> None:
    drawn = {word for word in (errors.__doc__ or "").split() if word.endswith("Error")}

    assert set(errors.__all__) <= drawn


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - MADE_OF_ARGUMENTS))
def test_an_errors_message_is_the_first_paragraph_of_its_docstring(name: str) -> None:
    error = getattr(errors, name)
    paragraph = " ".join((inspect.getdoc(error) or "").split("\n\n")[0].split())

    assert paragraph
    assert str(error()) == paragraph


@pytest.mark.parametrize(
    "error",
    [
        errors.SessionNotFoundError("s"),
        errors.SessionAccessError("s", "ann"),
        errors.TurnTimeLimitError(300),
        errors.SessionConflictError("s", 1, 2),
        errors.MailboxFullError("s", 5),
        errors.OverloadedError(1000),
        errors.SessionBusyError("s", 5),
        errors.MailboxUnavailableError(turn_id="s:1"),
        errors.ProviderUnavailableError("later", retry_after=3.5),
        errors.ModelBudgetError("later", retry_after=3.5),
        errors.DeliveryUnavailableError("later", retry_after=3.5),
        errors.TurnTimeoutError("not yet", turn_id="s:1"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_process_borders_whole(error: errors.InturnError) -> None:
    copied = pickle.loads(pickle.dumps(error))

    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert vars(copied) == vars(error)


def test_a_refusal_comes_back_whole_from_celery() -> None:
    """Which makes an error anew from its class and its arguments, as JSON."""
    backend = Celery(backend="cache+memory://", set_as_current=False).backend
    refused = errors.SessionAccessError("s")

    backend.store_result("s:1", refused, "FAILURE")

    told = backend.get_result("s:1")
    assert type(told) is errors.SessionAccessError
    assert str(told) == str(refused) == "the user that the turn is bound to has no session 's'"
    assert vars(told) == vars(refused)
