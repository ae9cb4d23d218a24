"""OpenAIProvider: language models of OpenAI, and of every server that speaks its protocol."""

from inturn.agent.openai.answer import Price
from inturn.agent.openai.provider import OpenAIProvider

__all__ = ["OpenAIProvider", "Price"]
