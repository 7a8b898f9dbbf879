"""rproxy: the OpenAI Responses API in front of any Chat Completions provider."""

__version__ = "0.1.0"
