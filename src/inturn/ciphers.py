"""Ciphers: AES-256-GCM with a key for each session, derived from one of a ring."""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

__all__ = ["InvalidTag", "cipher_of"]


@lru_cache(maxsize=4096)
def cipher_of(key: bytes, session_id: str) -> AESGCM:
    """The cipher of a session's values; threads may share it."""
    info = b"inturn session\0" + session_id.encode()
    return AESGCM(HKDFExpand(algorithm=SHA256(), length=len(key), info=info).derive(key))
