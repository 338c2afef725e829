"""How are the parts of a look joined: what tells of it, tokens, revocation and adoption around one reconciler?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta

from certrenewal.controller.adoption import Adoption
from certrenewal.controller.cache import Cache
from certrenewal.controller.cancelling import Canceller
from certrenewal.controller.obtaining import Queues
from certrenewal.controller.reconcile import Reconciler
from certrenewal.controller.reporter import Reporter
from certrenewal.controller.revoking import Revoker
from certrenewal.controller.telling import Hooks, Restarts, Servers, Teller
from certrenewal.controller.tokens import Tokens
from certrenewal.domain.rollout import Workload
from certrenewal.kube.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a look lives on: what is known, who is asked, who acts on what it finds."""

    cache: Cache
    store: Store
    authorities: Queues
    restarts: Restarts
    hooks: Hooks
    require: Callable[[], None]  # NotLeading where this replica does not lead any more
    clock: Callable[[], datetime]
    servers: Servers | None = None
    hurry: Callable[[Workload, str, str], None] | None = None
    aside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the administrator chose of it."""

    cluster_domain: str = "cluster.local"
    grace: timedelta = timedelta(minutes=5)  # before a replaced certificate is revoked
    together: float = 0.0
    may_signal: bool = True


def assemble(around: Surroundings, choices: Choices) -> Reconciler:
    """The reconciler with all its parts."""
    cache, store, authorities = around.cache, around.store, around.authorities
    require, clock = around.require, around.clock
    reporter = Reporter(store, clock)
    teller = Teller(
        cache=cache,
        store=store,
        restarts=around.restarts,
        hooks=around.hooks,
        reporter=reporter,
        require=require,
        clock=clock,
        servers=around.servers,
        hurry=around.hurry,
        may_signal=choices.may_signal,
    )
    tokens = Tokens(
        cache=cache,
        store=store,
        authorities=authorities,
        teller=teller,
        canceller=Canceller(authorities=authorities, reporter=reporter, require=require, clock=clock),
        reporter=reporter,
        require=require,
        clock=clock,
    )
    adoption = Adoption(
        cache,
        store,
        reporter,
        require=require,
        cluster_domain=choices.cluster_domain,
        withdraw=tokens.withdraw,
    )
    revoker = Revoker(
        cache=cache,
        store=store,
        authorities=authorities,
        reporter=reporter,
        publish=teller,
        require=require,
        clock=clock,
        grace=choices.grace,
    )
    return Reconciler(
        cache=cache,
        store=store,
        adoption=adoption,
        authorities=authorities,
        teller=teller,
        revoker=revoker,
        tokens=tokens,
        require=require,
        clock=clock,
        cluster_domain=choices.cluster_domain,
        together=choices.together,
        aside=around.aside,
    )
