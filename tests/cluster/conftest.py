"""Which running things do the cluster tests of one module share: one CA, and the operator from its chart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.site import LEASE, SYSTEM, Site, installed
from tests.conftest import MakeCA
from tests.testbed.controlplane import ControlPlane
from tests.testbed.faults import HttpProxy, api_proxy
from tests.testbed.operators import Operator


@pytest.fixture(scope="module")
def site(plane: ControlPlane, make_ca: MakeCA) -> Iterator[Site]:
    """The operator, installed by its chart, beside a CA that issues for exactly as long as it is asked to."""
    with installed(plane, make_ca(backdate="0s")) as running:
        yield running


@pytest.fixture
def slow_api(site: Site, tmp_path: Path) -> Iterator[tuple[HttpProxy, Operator]]:
    """The module's operator ended, and one in its place that reaches the API server through a proxy."""
    site.operator.stop()
    with api_proxy(site.plane, tmp_path) as proxy:
        operator = Operator(site.plane, SYSTEM, through=proxy, environment=LEASE)
        operator.start()
        yield proxy, operator
        operator.kill()
    site.operator.start()


@pytest.fixture(scope="module")
def foreign_pair(make_ca: MakeCA) -> tuple[str, str]:
    """Chain and key from a CA that the operator knows nothing of."""
    return make_ca("Foreign").certificate("foreign.example.com")
