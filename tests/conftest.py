"""Which running things do the tests share: one cluster per run, a fresh namespace per test, CAs per module."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from tests.testbed import manifests
from tests.testbed.controlplane import ControlPlane
from tests.testbed.stepca import StepCA


class MakeCA(Protocol):
    """The factory that ``make_ca`` gives; ``options`` as StepCA takes them."""

    def __call__(self, name: str = "Testbed", **options: Any) -> StepCA:
        """A started CA."""


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The cluster of this test run."""
    with ControlPlane(tmp_path_factory.mktemp("plane")) as cluster:
        yield cluster


@pytest.fixture
def namespace(plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace named for the test."""
    readable = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_"))[:48].strip("-")
    name = f"{readable}-{secrets.token_hex(2)}"
    plane.create(manifests.namespace(name))
    yield name
    plane.delete("namespaces", "", name)


@pytest.fixture(scope="module")
def make_ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeCA]:
    """A factory of started CAs, which end with the test module."""
    made: list[StepCA] = []

    def make(name: str = "Testbed", **options: Any) -> StepCA:
        ca = StepCA(tmp_path_factory.mktemp("ca"), name=name, **options)
        made.append(ca)
        ca.start()
        return ca

    yield make
    for ca in made:
        ca.kill()
