"""rproxy: the OpenAI Responses API in front of any Chat Completions provider."""

import os

__version__ = "0.1.0"

# Leave the packages of the extra ``fast`` alone, even if they are installed.
PURE = os.environ.get("RPROXY_PURE", "") not in ("", "0")
