"""The Celery application."""

from __future__ import annotations

from celery import Celery

from inturn.settings import load_settings

from .config import celery_config

settings = load_settings()

_MODULES = ("tasks", "lifecycle", "canary", "telemetry")
app = Celery("inturn", include=[f"{__package__}.{module}" for module in _MODULES])
app.conf.update(celery_config(settings))
