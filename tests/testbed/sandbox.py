"""What runs in ``make demo`` and ``make up``: a cluster, a step-ca, certrenewal from its chart, an empty namespace."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.testbed import manifests, operators, tools
from tests.testbed.api import Manifest
from tests.testbed.controlplane import ControlPlane
from tests.testbed.operators import Operator
from tests.testbed.processes import Process
from tests.testbed.stepca import StepCA

SYSTEM = "certrenewal"
SHOP = "shop"

_CA_NAMESPACE = "step"
_PASSWORD_SECRET = "step-certificates-provisioner-password"

Note = Callable[[Sequence[Process]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """The started parts."""

    plane: ControlPlane
    ca: StepCA
    operator: Operator


def require_programs() -> None:
    """Build what is missing of the tools; a ToolError says what cannot be had."""
    operators.program()
    tools.build()


def heading(number: int, text: str) -> None:
    """Print one step's title."""
    print(f"\n=== {number}. {text}", flush=True)


@contextlib.contextmanager
def sandbox(folder: Path, *, detached: bool = False, note: Note = lambda processes: None) -> Iterator[Sandbox]:
    """Everything started, and ended again; ``detached``: ended only where something fails.

    ``note`` hears of the processes so far after each step.
    """
    with contextlib.ExitStack() as ends:
        heading(1, "A Kubernetes control plane and a step-ca")
        plane = _start_plane(folder, detached)
        ends.callback(plane.stop)
        note(plane.processes)
        ca = _start_ca(folder, detached)
        ends.callback(ca.kill)
        note([*plane.processes, ca.process])
        heading(2, "certrenewal, installed by its chart")
        operator = _install(plane, ca, detached)
        ends.callback(operator.stop, 5)
        note([*plane.processes, ca.process, operator.process])
        _await_operator(plane, operator)
        with _showing_log_on_failure(operator):
            yield Sandbox(plane=plane, ca=ca, operator=operator)
        if detached:
            ends.pop_all()


def _start_plane(folder: Path, detached: bool) -> ControlPlane:
    plane = ControlPlane(folder / "plane", detached=detached)
    plane.start()
    print(f"{plane.kubectl('version').splitlines()[-1]} at {plane.server}", flush=True)
    return plane


def _start_ca(folder: Path, detached: bool) -> StepCA:
    ca = StepCA(folder / "ca", name="Demo", backdate="0s", detached=detached)
    ca.start()
    print(f"step-ca at {ca.url}, root {ca.fingerprint}", flush=True)
    return ca


def _install(plane: ControlPlane, ca: StepCA, detached: bool) -> Operator:
    for name in (_CA_NAMESPACE, SHOP):
        plane.create(manifests.namespace(name))
    plane.create(manifests.secret(_PASSWORD_SECRET, _CA_NAMESPACE, {"password": ca.password}))
    operators.install(plane, SYSTEM, values={"authority": _authority(ca)})
    operator = Operator(plane, SYSTEM, detached=detached)
    operator.launch()
    return operator


def _authority(ca: StepCA) -> Manifest:
    reference = {"namespace": _CA_NAMESPACE, "name": _PASSWORD_SECRET, "key": "password"}
    return {
        "create": True,
        "name": "default",
        "url": ca.url,
        "fingerprint": ca.fingerprint,
        "provisioner": {"name": ca.provisioner, "passwordSecretRef": reference},
        "policy": [{"namespaces": [SHOP], "names": ["*.shop.example.com"]}],
    }


def _await_operator(plane: ControlPlane, operator: Operator) -> None:
    with _showing_log_on_failure(operator):
        operator.await_ready()
        plane.kubectl("wait", "certauthority/default", "--for=condition=Ready", "--timeout=20s")
        print(plane.kubectl("get", "certauthorities").rstrip(), flush=True)


@contextlib.contextmanager
def _showing_log_on_failure(operator: Operator) -> Iterator[None]:
    try:
        yield
    except (AssertionError, RuntimeError) as failure:
        raise RuntimeError(f"{failure}\n\nend of the operator's log:\n{operator.log_text()[-3000:]}") from failure
