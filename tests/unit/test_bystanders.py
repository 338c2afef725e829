"""Guards: bare Pods are listed when a certificate is new, named while they run, and never make a list too many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from certrenewal.controller import bystanders
from certrenewal.controller.bystanders import Bystanders
from certrenewal.controller.cache import Cache, Key
from certrenewal.kube.errors import Forbidden
from tests.unit.test_cache import a_renewal

WEB_TLS = Key("shop", "web-tls")
SPEC = {"containers": [{"name": "main", "envFrom": [{"secretRef": {"name": "web-tls"}}]}]}


class Cluster:
    """Lists Pods, and what came of it."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.pods: list[Mapping[str, Any]] = []
        self.lists: list[str] = []
        self.woken: list[Key] = []
        self.leads = True
        self.allowed = True
        self.parts = Bystanders(cache=self.cache, pods=self, leads=lambda: self.leads, poke=self.woken.append)
        self.certificate("a")

    async def bare(self, namespace: str) -> list[Mapping[str, Any]]:
        """As `Pods` does."""
        self.lists.append(namespace)
        if not self.allowed:
            raise Forbidden("pods")
        return self.pods

    def certificate(self, fingerprint: str) -> None:
        """One is in the Secret."""
        self.cache.put_renewal(a_renewal(status={"certificate": {"fingerprint": fingerprint}}))

    def pod(self, name: str, spec: Mapping[str, Any] = SPEC) -> None:
        """A bare Pod."""
        self.pods.append({"metadata": {"namespace": "shop", "name": name, "uid": name}, "spec": spec})

    def named(self) -> list[str]:
        """The Pods that use the Secret."""
        return [str(found.ref) for found in self.cache.dependents(WEB_TLS)]


@asynccontextmanager
async def running() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    task = asyncio.create_task(cluster.parts.run())
    try:
        yield cluster
    finally:
        assert not task.done()
        task.cancel()


async def look(cluster: Cluster) -> None:
    """A look at the certificate ended, and the list that it may have asked for."""
    cluster.parts.see(WEB_TLS)
    for _ in range(10):
        await asyncio.sleep(0)


async def test_pods_are_listed_once_for_each_certificate() -> None:
    async with running() as cluster:
        for fingerprint in ("a", "a", "b", "b"):
            cluster.certificate(fingerprint)
            await look(cluster)

        assert cluster.lists == ["shop", "shop"]


async def test_pods_that_use_the_secret_are_named_and_wake_its_certificate() -> None:
    async with running() as cluster:
        cluster.pod("one")
        cluster.pod("other", {"containers": []})
        await look(cluster)

        assert cluster.named() == ["Pod/one"]
        assert cluster.woken == [WEB_TLS]


async def test_pods_that_are_gone_are_forgotten_with_the_next_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bystanders, "AGAIN", 0.01)
    async with running() as cluster:
        cluster.pod("one")
        await look(cluster)
        cluster.pods.clear()
        await asyncio.sleep(0.05)

        assert cluster.named() == []
        assert cluster.woken == [WEB_TLS, WEB_TLS]
        assert len(cluster.lists) == 2  # and none after there was nobody left to be named


async def test_a_list_that_is_refused_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bystanders, "AGAIN", 0.01)
    async with running() as cluster:
        cluster.allowed = False
        cluster.pod("one")
        await look(cluster)
        assert cluster.lists == ["shop"]
        cluster.allowed = True
        await asyncio.sleep(0.05)

        assert cluster.named() == ["Pod/one"]


async def test_only_the_leader_lists() -> None:
    async with running() as cluster:
        cluster.leads = False
        await look(cluster)
        assert cluster.lists == []

        cluster.leads = True
        await look(cluster)
        assert cluster.lists == ["shop"]


async def test_a_certificate_that_is_gone_is_forgotten() -> None:
    async with running() as cluster:
        await look(cluster)
        cluster.cache.lose_renewal(WEB_TLS)
        await look(cluster)

        assert cluster.parts._told == {}
        assert cluster.lists == ["shop"]
