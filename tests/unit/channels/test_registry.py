"""load_channels: what the settings ask for, and what is wrong with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from inturn.channels import list_channels, load_channels
from inturn.errors import ConfigurationError
from inturn.settings import load_settings

MODULE = """
from inturn.channels import Channel, Limits, Received

class Mine(Channel):
    limits = Limits(text=10)
    def verify(self, request): ...
    def receive(self, request): return Received()
    def send(self, address, text): return ""

def called(name):
    made = Mine()
    made.name = name
    return made

one = called("one")
other = called("one")
sms = called("sms")
by_settings = lambda settings: called(settings.key_prefix)
nothing = lambda settings: None
number = 5
nameless = Mine()
shouting = called("ONE/../two")
"""


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import nowhere_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)


def test_channels_are_objects_or_functions_of_the_settings() -> None:
    settings = load_settings(channels=" mine:one, mine:by_settings ,mine:nothing,", key_prefix="two")

    channels = load_channels(settings)

    assert list(channels) == ["one", "two"]
    assert list_channels(channels) == {
        "slack": "not set up",
        "sms": "not set up",
        "one": "on",
        "two": "on",
    }


@pytest.mark.parametrize("token", [None, "a-token"])
def test_a_channel_that_is_named_takes_the_place_of_one_that_is_built_in(token: str | None) -> None:
    account = {"twilio_account_sid": "AC0", "twilio_auth_token": token}  # half of it alone is an error
    settings = load_settings(channels="mine:sms", **account)

    channels = load_channels(settings)

    assert {name: type(channel).__name__ for name, channel in channels.items()} == {"sms": "Mine"}
    assert list_channels(channels) == {"slack": "not set up", "sms": "on"}


def test_none_are_set_up_by_default() -> None:
    assert load_channels(load_settings()) == {}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("mine", "write package.module:name"),
        (":one", "write package.module:name"),
        (".mine:one", "write package.module:name"),
        ("nowhere:one", "there is no module 'nowhere'"),
        ("mine:nowhere", "module 'mine' has no 'nowhere'"),
        ("mine:number", "is int; name a Channel"),
        ("mine:one,mine:other", "two channels are called 'one'"),
        ("mine:nameless", "has the name None"),
        ("mine:shouting", "has the name 'ONE/../two'"),
    ],
)
def test_what_is_wrong_is_said(path: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_channels(load_settings(channels=path))

    assert words in str(refused.value)


def test_an_error_within_a_channels_module_is_not_hidden() -> None:
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        load_channels(load_settings(channels="broken:one"))


def test_channels_that_are_not_set_up_load_no_package() -> None:
    script = (
        "import sys\n"
        "from inturn.channels import load_channels\n"
        "from inturn.settings import load_settings\n"
        "assert load_channels(load_settings()) == {}\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert not {"slack_sdk", "twilio", "requests", "celery"} & set(done.stdout.split())
