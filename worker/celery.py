"""The Celery application."""

from __future__ import annotations

from celery import Celery

from inturn.settings import load_settings

from .config import celery_config

settings = load_settings()

app = Celery("inturn", include=[f"{__package__}.tasks", f"{__package__}.lifecycle", f"{__package__}.canary"])
app.conf.update(celery_config(settings))
