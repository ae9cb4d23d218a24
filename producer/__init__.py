"""The web side: `uvicorn producer.web:app`."""
