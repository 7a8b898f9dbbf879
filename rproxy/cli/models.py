"""``rproxy models``: the configured models, their providers, and what is missing.  No provider is asked."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from typing import List, Optional, Sequence
from urllib.parse import urlsplit

from ..config.addresses import is_public
from ..config.schema import Config, Model, Provider
from ..service.catalog import efforts_of
from ..types import Json
from .command import Command, Environ, columns, complain
from .exit_status import OK
from .missing_keys import missing_variables, read_tolerantly

FINE, MISSING_KEY, NO_KEY = "ok", "missing key", "no key"
HEAD = ("MODEL", "DOWNSTREAM", "PROVIDER", "WINDOW", "EFFORTS", "PRICE", "STATE")
SAME_NAME = "(the same)"


def run(args: argparse.Namespace, environ: Environ) -> int:
    found = read_tolerantly(args, environ)
    found.say_source(True)
    entries = model_entries(found.config)
    if args.json:
        print(json.dumps(entries, indent=2))
        return OK
    print("\n".join(columns([HEAD, *map(cells, entries)], len(HEAD))))
    unset = {name for model in found.config.models for p in model.providers for name in missing_variables(p)}
    for name in sorted(unset):
        complain(f"${name} is not set: export {name}=...")
    return OK


def model_entries(config: Config) -> List[Json]:
    """One object for each model and each of its providers, in the order of the configuration."""
    return [_entry(model, provider) for model in config.models for provider in providers_of(model)]


def providers_of(model: Model) -> List[Provider]:
    """The providers of a model with their profiles; the keys of one provider count as one."""
    found: List[Provider] = []
    for provider in model.resolved(model.model).providers:
        name, hash_mark, number = provider.name.rpartition("#")
        if hash_mark and number.isdigit() and provider.weight:
            provider = replace(provider, name=name)
        if not any(_same(provider, other) for other in found):
            found.append(provider)
    return found


def _same(one: Provider, other: Provider) -> bool:
    return (one.name, one.base_url, one.wire) == (other.name, other.base_url, other.wire)


def _entry(model: Model, provider: Provider) -> Json:
    profile = provider.profile
    return {
        "model": model.model,
        "downstream_model": model.downstream_model or None,
        "provider": provider.name,
        "profile": profile.name,
        "context_window": model.context_window or profile.context_window,
        "efforts": efforts_of(replace(model, providers=(provider,))),
        "modalities": list(model.modalities or profile.modalities),
        "price": None if model.price is None else asdict(model.price),
        "state": state_of(provider),
    }


def state_of(provider: Provider) -> str:
    """What the configuration shows about a provider: can it be asked?"""
    if missing_variables(provider):
        return MISSING_KEY
    has_key = provider.api_key or provider.headers or provider.query or provider.client_cert
    public = is_public(urlsplit(provider.base_url).hostname or "")
    return NO_KEY if public and not has_key else FINE


# ---- For people
def cells(entry: Json) -> Sequence[str]:
    """An entry as the cells of a row."""
    return (
        entry["model"],
        entry["downstream_model"] or SAME_NAME,
        f"{entry['provider']} ({entry['profile']})",
        _tokens(entry["context_window"]),
        ",".join(entry["efforts"]) or "-",
        _cost(entry["price"]),
        entry["state"],
    )


def _tokens(count: Optional[int]) -> str:
    return "-" if count is None else f"{count // 1000}k" if count >= 10_000 else str(count)


def _cost(price: Optional[Json]) -> str:
    return "-" if price is None else f"{price['input']:g}/{price['output']:g} {price['currency']}"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a list of objects")


COMMAND = Command("list the configured models and their providers", "rproxy models --json", run, add_options)
