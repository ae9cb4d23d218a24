"""The queue's fixtures: a Valkey and worker processes for each test that asks for them."""

from tests.integration.worker.conftest import *  # noqa: F403
