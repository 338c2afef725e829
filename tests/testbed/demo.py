"""What does certrenewal do: one certificate, from three annotations to its renewal and the restarted pods."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509

from tests.testbed import manifests
from tests.testbed.api import Manifest
from tests.testbed.controlplane import ControlPlane
from tests.testbed.processes import NotInTime, until
from tests.testbed.sandbox import SHOP, Sandbox, heading, require_programs, sandbox
from tests.testbed.stepca import StepCA

LIFETIME = 70
SECRET = "web-tls"

_HEARTBEAT = 10.0
_ORDER = f"""\
apiVersion: v1
kind: Secret
metadata:
  name: {SECRET}
  namespace: {SHOP}
  annotations:
    certrenewal.dev/renew: "true"
    certrenewal.dev/names: web.shop.svc,www.shop.example.com
    certrenewal.dev/duration: {LIFETIME}s
"""


def demo() -> None:
    """Tell the story; RuntimeError or AssertionError where it goes differently."""
    began = time.monotonic()
    require_programs()
    with tempfile.TemporaryDirectory(prefix="certrenewal-demo-") as folder, sandbox(Path(folder)) as parts:
        _tell(parts)
    print(f"\nDone in {time.monotonic() - began:.0f} s; nothing is left running.")


def _tell(parts: Sandbox) -> None:
    plane = parts.plane
    heading(3, f"A Deployment that mounts Secret {SECRET}, and that Secret: empty, with three annotations")
    _order(plane)
    heading(4, "The operator asks step-ca and fills the Secret")
    first = _first_certificate(plane)
    _show_certificate(plane)
    heading(5, f"It lives for {LIFETIME} s: the renewal comes before two thirds of that")
    pods = _pods(plane)
    _watch_until_renewed(plane, first)
    _show_certificate(plane)
    heading(6, "The pods run with it: one rolling restart of the Deployment")
    _show_rollout(plane, pods)
    heading(7, "What the cluster and the CA recorded")
    _show_records(plane, parts.ca)


def _order(plane: ControlPlane) -> None:
    plane.create(manifests.deployment("web", SHOP, manifests.volume(SECRET), replicas=2))
    print(_ORDER.rstrip())
    print(plane.kubectl("apply", "-f", "-", stdin=_ORDER).rstrip(), flush=True)


def _first_certificate(plane: ControlPlane) -> str:
    until(lambda: _is_ready(plane), 30, "the first certificate")
    _await_rollout(plane)
    return _serial(plane)


def _watch_until_renewed(plane: ControlPlane, first: str) -> None:
    table = _Table(lambda: plane.kubectl("get", "certrenewals", "-n", SHOP))
    deadline = time.monotonic() + LIFETIME
    while True:
        table.show()
        if _serial(plane) != first:
            break
        if time.monotonic() > deadline:
            raise RuntimeError(f"no renewal within the certificate's lifetime: {_status(plane)}")
        time.sleep(1)
    renewal = _status(plane)["lastRenewal"]
    print(f"renewed by route {renewal['route']}: serial {first} → {_serial(plane)}", flush=True)


def _show_certificate(plane: ControlPlane) -> None:
    pem = manifests.decoded(plane.get("secrets", SHOP, SECRET), "tls.crt")
    leaf = x509.load_pem_x509_certificates(pem)[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    print(f"serial   {leaf.serial_number}")
    print(f"names    {', '.join(str(name.value) for name in names)}")
    print(f"valid    {leaf.not_valid_before_utc:%H:%M:%S} to {leaf.not_valid_after_utc:%H:%M:%S} UTC", flush=True)


def _show_rollout(plane: ControlPlane, before: set[str]) -> None:
    _await_rollout(plane)
    until(lambda: not before & _pods(plane), 30, "the old pods gone")
    print(plane.kubectl("rollout", "status", "deployment/web", "-n", SHOP).rstrip())
    print(plane.kubectl("get", "pods", "-n", SHOP).rstrip())
    print(plane.kubectl("get", "certrenewals", "-n", SHOP, "-o", "wide").rstrip(), flush=True)


def _show_records(plane: ControlPlane, ca: StepCA) -> None:
    print(plane.kubectl("events", "-n", SHOP, "--for", f"certrenewal/{SECRET}").rstrip())
    calls = [call for call in ca.calls() if call["method"] == "POST"]
    for call in calls:
        print(f"step-ca  {call['time']}  POST {call['path']}  {call['status']}  serial {call.get('serial', '-')}")


def _await_rollout(plane: ControlPlane) -> None:
    try:
        until(lambda: _is_rolled_out(plane), 30, "the Deployment runs with the certificate")
    except NotInTime as failure:
        raise RuntimeError(f"{failure}\nstatus: {_status(plane)}") from failure


def _status(plane: ControlPlane) -> Manifest:
    found = plane.find("certrenewals.certrenewal.dev", SHOP, SECRET) or {}
    status: Manifest = found.get("status", {})
    return status


def _serial(plane: ControlPlane) -> str:
    return str(_status(plane).get("certificate", {}).get("serial", ""))


def _is_ready(plane: ControlPlane) -> bool:
    return _condition(plane, "Ready") == "True"


def _is_rolled_out(plane: ControlPlane) -> bool:
    status = _status(plane)
    current = str(status.get("certificate", {}).get("fingerprint", ""))
    deployed = [str(workload.get("fingerprint", "")) for workload in status.get("workloads", [])]
    up_to_date = [mark for mark in deployed if mark and current.startswith(mark)]
    return _condition(plane, "RolledOut") == "True" and len(up_to_date) == len(deployed) == 1


def _condition(plane: ControlPlane, kind: str) -> str:
    conditions: list[dict[str, Any]] = _status(plane).get("conditions", [])
    return next((str(found["status"]) for found in conditions if found["type"] == kind), "")


def _pods(plane: ControlPlane) -> set[str]:
    return {pod["metadata"]["uid"] for pod in plane.objects("pods", SHOP, "app=web")}


class _Table:
    """Prints a kubectl table when more than its ages changed, its header once."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._shown: list[list[str]] | None = None
        self._printed = 0.0

    def show(self) -> None:
        header, *rows = self._read().splitlines()
        without_age = [row.split()[:-1] for row in rows]
        if without_age == self._shown and time.monotonic() - self._printed < _HEARTBEAT:
            return
        print("\n".join(rows if self._shown is not None else [header, *rows]), flush=True)
        self._shown, self._printed = without_age, time.monotonic()
