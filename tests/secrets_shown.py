"""Secrets in texts from outside, and what may be shown of them: one table for all paths to a reader."""

from __future__ import annotations

from typing import List, Tuple

SECRETS = ["plainsecretofacme", "tiny7", 'quo"ted/secret', "t", "test", ""]  # what is configured

# (text, shown)
CASES: List[Tuple[str, str]] = [
    ("key sk-0123456789abcdef refused", "key sk-*** refused"),
    ("sk-proj-abc_DEF-123456. Next sentence", "sk-***. Next sentence"),
    ("csk-0123456789abcdef", "csk-***"),
    ("pplx-0123456789abcdef", "pplx-***"),
    ("(xai-0123456789abcdef)", "(xai-***)"),
    ("nvapi-0123456789_abcdef", "nvapi-***"),
    ("tvly-dev-0123456789", "tvly-***"),
    ("gsk_0123456789abcdef", "gsk_***"),
    ("hf_abcdefghijklmnop", "hf_***"),
    ("r8_0123456789abcdef", "r8_***"),
    ("tgp_v1_0123456789abcdef", "tgp_v1_***"),
    ("ghp_0123456789abcdef, github_pat_0123456789abcdef", "ghp_***, github_pat_***"),
    ("?key=AIzaSyA-1234567890&alt=sse", "?key=AIza***&alt=sse"),
    ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer ***"),
    ("authorization: Basic dXNlcjpwdw==", "authorization: Basic ***"),
    ("cannot reach http://user:pass-w0rd@proxy:3128/", "cannot reach http://user:***@proxy:3128/"),
    ("two lines\nsk-0123456789abcdef", "two lines\nsk-***"),
    ("it was plainsecretofacme-2", "it was ***-2"),
    ("it was tiny7, not tiny77", "it was ***, not tiny77"),
    ('it was quo"ted/secret', "it was ***"),
    ("the task-force, a risk-averse test of sk-learn", "the task-force, a risk-averse *** of sk-learn"),
    ("bearer token required; basic functionality", "bearer token required; basic functionality"),
    ("Your api key: ****abcd is invalid", "Your api key: ****abcd is invalid"),
    ("https://example.com:8080/a@b", "https://example.com:8080/a@b"),
]
