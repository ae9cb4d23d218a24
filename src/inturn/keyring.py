"""KeyRing: the keys that seal what people have said, each with an ID by which it is found again.

A sealed value is the text `v1:<key ID>:<base64 of nonce, ciphertext and tag>`, of AES-256-GCM. It is bound to
its place, such as a session's ID and the name of a field: in any other place it cannot be opened. Each
session's values are sealed with a key of their own, derived from the one in the ring (HKDF-Expand with
SHA-256). Nonces are random and have 96 bits, of which one key may see 2**32: that many values of one session,
and not of all of them, so nothing has to be counted.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Self

from pydantic import SecretStr

from inturn.errors import ConfigurationError, EncryptionKeyError
from inturn.loading import load_path

KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION = "v1"
_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}", re.ASCII)
_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_WHERE = "INTURN_ENCRYPTION_KEYS"
_FORM = "a key is written `id:` and the base64 of 32 random bytes; `inturn keys new` prints one"


class KeyRing:
    """Keys by their IDs. The first one seals, and all of them open.

    A ring without keys seals nothing, and opens nothing: whoever has it can read what is not sealed.

    Raises `ConfigurationError` for a key that is none; no message and no `repr` shows one.
    """

    def __init__(self, keys: Mapping[str, bytes] | None = None) -> None:
        self._keys = dict(keys or {})
        for number, (key_id, key) in enumerate(self._keys.items(), 1):
            if not isinstance(key_id, str) or not _ID.fullmatch(key_id):
                raise ConfigurationError(
                    f"{_WHERE}: the ID of key {number} must have 1 to 32 letters, digits and _.-; {_FORM}"
                )
            if not isinstance(key, bytes) or len(key) != KEY_BYTES:
                raise ConfigurationError(f"{_WHERE}: key {key_id!r} has not {KEY_BYTES} bytes; {_FORM}")

        if self._keys:
            # Not above: a process without keys needs no cryptography.
            from inturn.ciphers import InvalidTag, cipher_of

            self._cipher_of = cipher_of
            self._refused = (InvalidTag, ValueError)

    @classmethod
    def read(cls, setting: SecretStr | None) -> Self:
        """Read what `INTURN_ENCRYPTION_KEYS` says: keys, the path of a file with one a line, or the dotted
        path of a function that gives them, which is called.
        """
        text = "" if setting is None else setting.get_secret_value().strip()
        # The base64 of 32 bytes ends with "=", which is in no dotted path and in hardly any file's name.
        if not text or "=" in text:
            return cls.read_text(text)
        if _PATH.fullmatch(text):
            return cls(_called(text))
        try:
            return cls.read_text(Path(text).read_text())
        except (OSError, UnicodeError, ValueError) as error:
            raise _unreadable(type(error).__name__) from None

    @classmethod
    def read_text(cls, text: str) -> Self:
        """Read keys, each `id:` and the base64 of 32 bytes, with commas or line ends between them."""
        return cls(dict(_parsed(text)))

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)})"

    @property
    def ids(self) -> list[str]:
        """The IDs of the keys; the first one's seals."""
        return list(self._keys)

    def seal(self, plain: bytes, session_id: str, *place: str) -> str:
        """Seal `plain` with the first key, for this session and place."""
        key_id, key = next(iter(self._keys.items()))
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._cipher_of(key, session_id).encrypt(nonce, plain, _bound_to(key_id, session_id, place))
        return f"{_VERSION}:{key_id}:{binascii.b2a_base64(nonce + sealed, newline=False).decode()}"

    def open(self, sealed: str, session_id: str, *place: str) -> bytes:
        """Open what was sealed for this session and place.

        Raises `EncryptionKeyError` if its key is not here, or is not the one that it was sealed with.
        """
        key_id, encoded = _parts(sealed)
        key = self._keys.get(key_id)
        if key is None:
            raise EncryptionKeyError(key_id or None, session_id)
        try:
            raw = binascii.a2b_base64(encoded, strict_mode=True)
            cipher, bound = self._cipher_of(key, session_id), _bound_to(key_id, session_id, place)
            return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], bound)
        except self._refused:
            raise EncryptionKeyError(key_id, session_id, is_known=True) from None


def key_ring(setting: SecretStr | None) -> KeyRing:
    """The key ring of a setting, read once in this process; see `KeyRing.read`."""
    return _read_once(None if setting is None else setting.get_secret_value())


@lru_cache(maxsize=16)
def _read_once(text: str | None) -> KeyRing:
    return KeyRing.read(None if text is None else SecretStr(text))


def key_id_of(sealed: object) -> str | None:
    """The ID of the key of a sealed value; None: this is not one, or one of a later release."""
    return (_parts(sealed)[0] or None) if isinstance(sealed, str) else None


def _parts(sealed: str) -> tuple[str, str]:
    """The key's ID and what is encoded; no ID if this is no sealed value of ours."""
    version, _, rest = sealed.partition(":")
    key_id, colon, encoded = rest.partition(":")
    return (key_id, encoded) if version == _VERSION and colon else ("", "")


def create_key(key_id: str) -> str:
    """Make a new key, as `INTURN_ENCRYPTION_KEYS` has it; raises `ConfigurationError` for a bad ID."""
    key = secrets.token_bytes(KEY_BYTES)
    KeyRing({key_id: key})
    return f"{key_id}:{base64.b64encode(key).decode()}"


def _parsed(text: str) -> Iterator[tuple[str, bytes]]:
    seen: set[str] = set()
    for line in re.split(r"[,\n]", text):
        if not (line := line.strip()) or line.startswith("#"):
            continue
        key_id, _, encoded = (part.strip() for part in line.partition(":"))
        if not _ID.fullmatch(key_id):
            # Not even the ID is shown: it may be the key, where the ID was forgotten.
            raise ConfigurationError(f"{_WHERE}: entry {len(seen) + 1} has no ID; {_FORM}")
        if key_id in seen:
            raise ConfigurationError(f"{_WHERE}: two keys have the ID {key_id!r}; give each its own")
        seen.add(key_id)
        try:
            yield key_id, base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise ConfigurationError(f"{_WHERE}: key {key_id!r} is not base64; {_FORM}") from None


def _called(path: str) -> Mapping[str, bytes]:
    try:
        module, name = load_path(path, "encryption keys")
    except ConfigurationError:
        # Its words would repeat the path, which may be a key, badly written.
        raise _unreadable("no such module") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigurationError(f"{_WHERE}: {path!r} is no function; it must give a dict of IDs and keys")
    try:
        keys = function()
    except Exception as error:
        # What it says may hold anything.
        raise ConfigurationError(f"{_WHERE}: {path!r} raised {type(error).__name__}") from error
    if not isinstance(keys, Mapping) or not keys:
        raise ConfigurationError(f"{_WHERE}: {path!r} must give a dict of IDs and keys, the newest first")
    return keys


def _unreadable(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{_WHERE} is neither keys, nor the path of a file that can be read, nor the dotted path "
        f"package.module:function of one that gives them ({why}); {_FORM}"
    )


def _bound_to(key_id: str, session_id: str, place: tuple[str, ...]) -> bytes:
    # No part may contain NUL, so the text can be read in one way only.
    return "\0".join((_VERSION, key_id, session_id, *place)).encode()
