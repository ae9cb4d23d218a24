"""Flower's settings; what stands here wins over FLOWER_... in the environment, so port and passwords do not.

Whoever can open Flower can read the results of turns, which are the agent's replies, and stop workers. So

- FLOWER_BASIC_AUTH=name:password closes all of it but /healthcheck and what a browser needs for the pages;
- without it only somebody on this machine sees pages, and nobody its API or its metrics. Where Flower listens
  for others too, it makes up a password and says it on standard error.
"""

import ipaddress
import secrets
import sys

from flower.views.monitor import Metrics
from kombu.transport.redis import QoS
from tornado.options import options
from tornado.web import HTTPError, authenticated

# A task here is a wake-up of a session; ten thousand are enough to look back on.
max_tasks = 10_000
purge_offline_workers = 300
natural_time = True
tasks_columns = "name,uuid,state,kwargs,received,started,runtime,worker"


def _is_for_this_machine(address: str) -> bool:
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False  # a name, or nothing, which means all addresses


def _closed(_: Metrics) -> None:
    if not (options.basic_auth or options.auth):
        raise HTTPError(401)


if not (options.basic_auth or options.auth) and not _is_for_this_machine(options.address):
    password = secrets.token_urlsafe(24)
    basic_auth = [f"inturn:{password}"]
    sys.stderr.write(f"flower: no FLOWER_BASIC_AUTH is set; for now it is inturn:{password}\n")

# Flower itself closes its API to whoever shows nothing, and leaves its metrics open to all.
Metrics.prepare = _closed
Metrics.get = authenticated(Metrics.get)

# Whoever listens to Redis by way of kombu gives back messages that workers have held for too long. Flower
# only watches, and need not have the right to write to the queues.
QoS.restore_visible = lambda *_, **__: None
