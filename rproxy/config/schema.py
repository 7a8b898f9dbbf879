"""The sections of the configuration and their keys.

Each section is a frozen dataclass whose fields are the table of its keys: type, default, one line of
documentation (see :mod:`rproxy.config.checks`).  ``etc/config.yaml`` shows them all.  Secret values appear
neither in a repr nor in a message.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Mapping, Optional, Tuple

from ..convert.profile import EFFORTS, MODALITIES
from ..convert.request.rewrite import Rule
from ..providers.profiles import choose_profile
from ..types import light_dataclass
from . import checks as c
from .addresses import url_secrets
from .checks import REQUIRED, Place, key
from .hosted_schema import HostedLimits
from .keys import Key
from .provider_schema import Provider, read_overrides, read_providers
from .routes import Routes
from .server_schema import Auth, Server, StoreConfig, UsageConfig, read_server, read_store

if TYPE_CHECKING:
    from .mcp_schema import McpServer
    from .search_schema import Search

__all__ = ["Auth", "Config", "Key", "Model", "Provider", "Server", "StoreConfig", "UsageConfig"]


def _prompt_file(place: Place) -> str:
    """The path of a file that is not empty: Codex has no substitute for an empty prompt."""
    if not c.read_file(place).strip():
        raise place.error("the file is empty, and would leave the model without a prompt")
    return c.file_path(place)


@light_dataclass(frozen=True)
class Price:
    """What a million tokens of a model cost."""

    input: float = key(c.amount, REQUIRED, "a million tokens of input")
    output: float = key(c.amount, REQUIRED, "a million tokens of output, thinking included")
    cached: Optional[float] = key(
        c.amount, None, "a million tokens of input from the provider's cache; default: as input"
    )
    currency: str = key(c.text, "USD", "the same for all models")

    def cost(self, input_tokens: int, cached_tokens: int, output_tokens: int) -> float:
        """What a turn costs.

        :param input_tokens: with the cached ones
        """
        cached = self.input if self.cached is None else self.cached
        fresh = input_tokens - cached_tokens
        return (fresh * self.input + cached_tokens * cached + output_tokens * self.output) / 1e6


@light_dataclass(frozen=True)
class Model:
    """A model that clients ask for, and the providers that answer.

    ``model`` may be a glob (``*`` stands for any text).  :meth:`Config.route` returns such a model with
    ``downstream_model`` filled in; ``model`` is still the glob.  What the file does not say about the model's
    abilities comes from the first provider's profile.
    """

    model: str = key(
        c.text, REQUIRED, 'the name that clients send; "*" or "gpt-*" answers for every name that matches'
    )
    providers: Tuple[Provider, ...] = key(
        read_providers, REQUIRED, "who answers: one provider, or a list of them", name="provider"
    )
    downstream_model: str = key(
        c.text, "", "the provider's name for it; default: the name that the client sends"
    )
    display_name: str = key(c.text, "", "the name in menus; default: the model's")
    description: str = key(c.text, "", "one line for menus")
    context_window: Optional[int] = key(
        c.whole(1), None, "tokens; Codex compacts its history in time; default: the profile's"
    )
    max_output_tokens: Optional[int] = key(
        c.whole(1), None, "limit when the client sends none, or a higher one"
    )
    modalities: Tuple[str, ...] = key(
        c.list_of(c.one_of(*MODALITIES)), (), "what it reads; default: the profile's"
    )
    efforts: Tuple[str, ...] = key(
        c.list_of(c.one_of(*EFFORTS)), (), "the reasoning efforts to choose from; default: the profile's"
    )
    instructions_file: Optional[str] = key(_prompt_file, None, "Codex's base prompt; default: rproxy's own")
    price: Optional[Price] = key(c.section(Price), None, "what a million tokens cost, for usage and metrics")
    override: Mapping[str, Any] = key(read_overrides, {}, "profile fields for this model")
    rewrite: Tuple[Rule, ...] = key(
        c.later("rewrite_rules", "rewrite_rules"),
        (),
        "changes to the request for this model, after those of the provider",
    )

    @property
    def is_glob(self) -> bool:
        return "*" in self.model

    def resolved(self, requested: str) -> Model:
        """This model for requests that name ``requested``: with its downstream name, profiles, and what
        depends on these.
        """
        downstream = self.downstream_model or requested
        own = {name: getattr(self, name) for name in ("modalities", "context_window") if getattr(self, name)}

        def resolved_provider(p: Provider) -> Provider:
            overrides = (p.override, self.override, own)
            profile = choose_profile(p.profile_name, p.base_url, downstream, *overrides, wire=p.wire)
            return replace(p, rewrite=p.rewrite + self.rewrite, profile=profile)

        providers = tuple(map(resolved_provider, self.providers))
        profile = providers[0].profile
        return replace(
            self,
            providers=providers,
            downstream_model=downstream,
            display_name=self.display_name or requested,
            context_window=profile.context_window,
            modalities=profile.modalities,
            rewrite=(),
        )


def _model(place: Place) -> Model:
    model = Model(**c.values_of(Model, place))
    return model if model.is_glob else model.resolved(model.model)


def _models(place: Place) -> Tuple[Model, ...]:
    mistakes = c.Mistakes()
    models: Tuple[Model, ...] = ()
    with mistakes.collected():
        models = c.list_of(_model, "a list of models", at_least=1)(place)
    entries = place.value if isinstance(place.value, list) else []
    names = [entry.get("model") if isinstance(entry, dict) else None for entry in entries]
    for i, name in enumerate(names):
        if name is not None and names.index(name) != i:
            line = place.document.position((*place.path, names.index(name), "model"))[0]
            text = f"the model {name!r} is in line {line} already; for several providers, give one model "
            with mistakes.collected():
                raise place.step(i).step("model").error(text + "a list under 'provider'")
    mistakes.check()
    currencies = {model.price.currency: i for i, model in reversed(list(enumerate(models))) if model.price}
    for other, i in list(currencies.items())[:-1]:
        raise (
            place.step(i)
            .step("price")
            .error(
                f"this price is in {other}, but that of an earlier model is in {list(currencies)[-1]}; "
                "use one currency for all"
            )
        )
    return models


@light_dataclass(frozen=True)
class Config:
    """A whole configuration.

    ``path``: of its file, if there is one.  ``warnings``: for the user, at the start.
    """

    models: Tuple[Model, ...] = key(_models, REQUIRED, "the models, at least one")
    server: Server = key(read_server, Server(), "the side of the clients")
    store: StoreConfig = key(read_store, StoreConfig(), "where responses are kept for previous_response_id")
    usage: UsageConfig = key(c.section(UsageConfig), UsageConfig(), "how tokens are reported and recorded")
    search: Optional[Search] = key(
        c.later("search_schema", "read_search"), None, "the web search service; default: none"
    )
    mcp_servers: Tuple[McpServer, ...] = key(
        c.later("mcp_schema", "read_mcp_servers"),
        (),
        "MCP servers whose tools every model can use; default: none",
    )
    hosted_tools: HostedLimits = key(
        c.section(HostedLimits), HostedLimits(), "limits on the tools that rproxy runs itself"
    )
    path: Optional[str] = None
    warnings: Tuple[str, ...] = ()

    @cached_property
    def secrets(self) -> Tuple[str, ...]:
        """Texts that no message and no log may contain: the keys of clients, of providers, of the search
        service, of MCP servers and of rproxy itself, and all other credentials.
        """
        return (
            *(k.value for k in self.server.auth.keys if k.value),
            *filter(None, [self.server.seal_key]),
            *url_secrets(self.store.url or ""),
            *(self.search.secrets if self.search is not None else ()),
            *(secret for server in self.mcp_servers for secret in server.secrets),
            *(s for m in self.models for p in m.resolved(m.model).providers for s in p.secrets),
        )

    @property
    def has_mcp(self) -> bool:
        """May clients use MCP servers?"""
        return bool(self.mcp_servers or self.hosted_tools.mcp_hosts)

    @cached_property
    def _routes(self) -> Routes:
        return Routes(self.models)

    def route(self, name: str) -> Optional[Model]:
        """The model that answers for ``name``, or None; see :mod:`rproxy.config.routes`."""
        return self._routes.find(name)
