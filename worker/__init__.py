"""The Celery side: `celery -A worker worker`, `celery -A worker beat`, `celery -A worker flower`."""
