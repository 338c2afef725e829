"""Which running things do the cluster tests of one module share: one CA, and the operator from its chart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.site import Site, installed
from tests.conftest import MakeCA
from tests.testbed.controlplane import ControlPlane


@pytest.fixture(scope="module")
def site(plane: ControlPlane, make_ca: MakeCA) -> Iterator[Site]:
    """The operator, installed by its chart, beside a CA that issues for exactly as long as it is asked to."""
    with installed(plane, make_ca(backdate="0s")) as running:
        yield running


@pytest.fixture(scope="module")
def foreign_pair(make_ca: MakeCA) -> tuple[str, str]:
    """Chain and key from a CA that the operator knows nothing of."""
    return make_ca("Foreign").certificate("foreign.example.com")
