"""Which authorities are there, and who asks for which of them?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

from certrenewal import metrics
from certrenewal.controller.cache import Key
from certrenewal.controller.gate import Gate
from certrenewal.controller.keeper import AuthorityObject, Keeper
from certrenewal.controller.reporter import Reporter
from certrenewal.domain.authority import AuthorityView
from certrenewal.domain.reasons import Reason
from certrenewal.kube.store import Store
from certrenewal.stepca.authority import Authority
from certrenewal.stepca.errors import Unreachable


class Authorities:
    """All CertAuthorities of the cluster."""

    def __init__(
        self,
        *,
        store: Store,
        reporter: Reporter,
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
        changed: Callable[[str], None],
        needed: Callable[[str], Collection[str] | None],
        call_back: Callable[[Key], None],
    ) -> None:
        self._store = store
        self._reporter = reporter
        self._leads = leads
        self._clock = clock
        self._changed = changed
        self._needed = needed
        self._call_back = call_back
        self._keepers: dict[str, tuple[Keeper, asyncio.Task[None]]] = {}

    def view(self, name: str) -> AuthorityView | None:
        """What is known of an authority, None before it was first asked."""
        if name in self._keepers:
            return self._keepers[name][0].view
        return AuthorityView(
            name=name,
            ready=False,
            reason=Reason.AUTHORITY_NOT_FOUND,
            message=f"there is no CertAuthority {name!r}: create it, or name another one in spec.authority",
        )

    def use(self, name: str) -> Authority:
        """The authority itself, which its view calls ready."""
        authority = self._keepers[name][0].authority if name in self._keepers else None
        if authority is None:
            raise Unreachable(f"CertAuthority {name} is being set up again")
        return authority

    def knock(self, name: str, key: Key, urgency: float) -> bool:
        """Whether ``enter`` would let it in; if not, its key is called back."""
        self._leave_others(name, key)
        return name in self._keepers and self._keepers[name][0].gate.knock(key, urgency)

    def enter(self, name: str, key: Key, urgency: float) -> bool:
        """Whether a certificate may be asked for now; if not, its key is called back."""
        self._leave_others(name, key)
        return name in self._keepers and self._keepers[name][0].gate.enter(key, urgency)

    def _leave_others(self, name: str, key: Key) -> None:
        """Where its spec named another authority until now, no place is kept for it there."""
        for other, (keeper, _) in self._keepers.items():
            if other != name:
                keeper.gate.forget(key)

    def leave(self, name: str, key: Key) -> None:
        """The authority answered, or did not."""
        if name in self._keepers:
            self._keepers[name][0].gate.leave(key)

    def forget(self, key: Key) -> None:
        """Nothing is to be asked for this certificate any more."""
        for keeper, _ in self._keepers.values():
            keeper.gate.forget(key)

    def report(self, name: str, failure: Unreachable) -> None:
        """A call found the CA unreachable."""
        if name in self._keepers:
            self._keepers[name][0].trip(failure)

    def doubt(self, name: str) -> None:
        """A call found that the CA believes our tokens no longer: its provisioner may be another."""
        if name in self._keepers:
            self._keepers[name][0].wake()

    def see(self, body: Mapping[str, Any]) -> None:
        """A CertAuthority as the API server shows it."""
        metadata = body["metadata"]
        seen = AuthorityObject(
            name=metadata["name"],
            uid=metadata["uid"],
            generation=metadata.get("generation", 1),
            spec=body.get("spec") or {},
            status=body.get("status") or {},
        )
        if seen.name in self._keepers:
            self._keepers[seen.name][0].see(seen)
            return
        keeper = Keeper(
            seen,
            store=self._store,
            reporter=self._reporter,
            leads=self._leads,
            clock=self._clock,
            changed=lambda: self._changed(seen.name),
            needed=lambda: self._needed(seen.name),
            gate=Gate(self._call_back),
        )
        self._keepers[seen.name] = (keeper, asyncio.create_task(keeper.run(), name=f"keeper {seen.name}"))

    def lose(self, name: str, uid: str) -> None:
        """A CertAuthority is gone; another one may have its name by now."""
        if name in self._keepers and self._keepers[name][0].uid == uid:
            self._keepers.pop(name)[1].cancel()
            with contextlib.suppress(KeyError):
                metrics.AUTHORITY_READY.remove(name)
            self._changed(name)

    def see_secret(self, secret: Key) -> None:
        """A Secret changed: where it holds a provisioner's password, that may be another one now."""
        for keeper, _ in self._keepers.values():
            if keeper.uses_secret(secret):
                keeper.wake(rebuild=True)

    def wake(self) -> None:
        """We lead now: what is known is to be told."""
        for keeper, _ in self._keepers.values():
            keeper.wake()

    async def close(self) -> None:
        """End all keepers."""
        tasks = [task for _, task in self._keepers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
