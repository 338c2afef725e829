"""A kind that is installed later is watched from then on, and one that is removed is done without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.site import SYSTEM, Site, authority, prepare, sweep
from tests.cluster.test_kinds import (
    EXTRA,
    HEALTHY,
    ROLLOUTS,
    USE,
    install_rollouts,
    remove_rollouts,
    renew,
    rolled,
    rollout,
    settle,
    standing,
    tell,
)
from tests.cluster.test_restart import marks
from tests.conftest import MakeCA
from tests.testbed import manifests, operators
from tests.testbed.controlplane import ControlPlane
from tests.testbed.operators import Operator
from tests.testbed.processes import until
from tests.testbed.stepca import StepCA


@pytest.fixture(scope="module")
def ca(make_ca: MakeCA) -> StepCA:
    """The CA of this module."""
    return make_ca(backdate="0s")


@pytest.fixture
def clean(plane: ControlPlane, ca: StepCA) -> Iterator[ControlPlane]:
    """A cluster without a release and without Rollouts, also afterwards."""
    remove_rollouts(plane)
    prepare(plane, ca)
    yield plane
    operators.uninstall(plane, SYSTEM)
    sweep(plane)
    remove_rollouts(plane)


def noticed(operator: Operator, words: str) -> bool:
    """Whether the log says so of Rollouts."""
    return any(
        words in line["message"] and line.get("collection", "").endswith("/rollouts") for line in operator.logs()
    )


def test_a_kind_that_is_installed_later_is_watched_from_then_on(clean: ControlPlane, ca: StepCA) -> None:
    clean.apply(manifests.namespace("late"))
    values = {"authority": authority(ca), "extraWorkloads": EXTRA, "watchNamespaces": ["late"]}
    operators.install(clean, SYSTEM, values=values)
    with Operator(clean, SYSTEM) as operator:
        site = Site(plane=clean, ca=ca, operator=operator)
        site.order("late")
        site.await_ready("late")

        install_rollouts(clean)
        until(lambda: noticed(operator, "is followed again"), 40, "the kind is noticed")
        clean.create(rollout("web", "late", USE))
        tell(site, "late", HEALTHY)
        settle(site, "late", {"Rollout/web": ("Healthy", "")})
        mark = renew(site, "late")
        until(lambda: rolled(site, "late", "web") == 2, 20, "the restart")

        assert list(marks(clean.get(ROLLOUTS, "late", "web")).values()) == [mark]


def test_a_kind_may_go_and_come_again(clean: ControlPlane, ca: StepCA) -> None:
    install_rollouts(clean)
    clean.apply(manifests.namespace("again"))
    operators.install(clean, SYSTEM, values={"authority": authority(ca), "extraWorkloads": EXTRA})
    with Operator(clean, SYSTEM) as operator:
        site = Site(plane=clean, ca=ca, operator=operator)
        clean.create(rollout("web", "again", USE))
        tell(site, "again", HEALTHY)
        site.order("again")
        site.await_ready("again")
        until(lambda: "Rollout/web" in standing(site, "again"), 20, "the Rollout is known")

        remove_rollouts(clean)
        until(lambda: noticed(operator, "cannot be followed"), 40, "its absence is noticed")
        settle(site, "again", {})
        install_rollouts(clean)
        until(lambda: noticed(operator, "is followed again"), 40, "its return is noticed")
        clean.create(rollout("web", "again", USE))
        tell(site, "again", HEALTHY)
        settle(site, "again", {"Rollout/web": ("Healthy", "")})

        assert operator.process.running
