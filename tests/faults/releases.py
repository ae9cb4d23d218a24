"""The next release, as far as payloads go: it writes format 2, and reads both."""

from __future__ import annotations

import json
import os
from typing import Any

import inturn.contract
from inturn import client

VERSION = int(os.environ.get("FAULTS_RELEASE", "1"))


def become() -> None:
    """Make this process one of the release that `FAULTS_RELEASE` names."""
    if VERSION == 1:
        return
    inturn.contract.PAYLOAD_VERSION = VERSION  # type: ignore[misc]
    module: Any = client
    encode = module.encode_payload

    def encode_payload(*args: Any) -> str:
        payload = {**json.loads(encode(*args)), "v": VERSION, "mood": "a field that release 1 does not know"}
        return json.dumps(payload)

    module.encode_payload = encode_payload
