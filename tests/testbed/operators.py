"""How does the operator run in tests: installed by its chart, started here just as the chart's Deployment says.

Program, arguments and environment come from the installed Deployment; rights from its ServiceAccount's token.
What only a pod would have is replaced: the kubeconfig, a free loopback port, an identity. The pods that the
cluster itself starts for the Deployment are kwok's and do nothing.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from tests.testbed import tools
from tests.testbed.api import Manifest
from tests.testbed.cluster import Cluster
from tests.testbed.controlplane import ControlPlane
from tests.testbed.processes import Process, free_port

CHART = Path(__file__).parents[2] / "charts" / "certrenewal"
RELEASE = "certrenewal"

_START = 30
_KEPT_VARIABLES = re.compile(r"PATH|HOME|LANG|TMPDIR|COV.*|PYTHON(?!PATH).*")
_REPLACED_OPTIONS = re.compile(r"--(listen|identity|token-listen)(=|$)")
_numbers = itertools.count(1)


class Endpoint(Protocol):
    """A way to the API server other than the direct one: a proxy's address and the CA for its certificate."""

    @property
    def url(self) -> str:
        """Such as https://127.0.0.1:20443."""

    @property
    def ca_file(self) -> Path:
        """A PEM file."""


def program(name: str = "certrenewal") -> Path:
    """The installed command beside the running Python; a ToolError tells how to get it."""
    found = Path(sys.executable).with_name(name)
    if not found.exists():
        raise tools.ToolError(f"{found} is missing: run `make dev`, then start the tests with that Python")
    return found


def helm(plane: Cluster, *arguments: str) -> str:
    """What helm prints, as the administrator."""
    outcome = subprocess.run(
        [tools.path("helm"), f"--kubeconfig={plane.kubeconfig}", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "HOME": str(plane.folder), "HELM_DRIVER": "secret"},
    )
    if outcome.returncode:
        raise RuntimeError(f"helm {' '.join(arguments)} failed: {outcome.stderr.strip()}\n{outcome.stdout}")
    return outcome.stdout


def install(
    plane: Cluster,
    namespace: str,
    release: str = RELEASE,
    values: Mapping[str, Any] | None = None,
    chart: Path = CHART,
    *options: str,
) -> None:
    """``helm install``, waiting for the Deployment; the namespace is made."""
    helm(plane, "install", release, *_release(plane, namespace, values, chart), "--create-namespace", *options)


def upgrade(
    plane: Cluster,
    namespace: str,
    release: str = RELEASE,
    values: Mapping[str, Any] | None = None,
    chart: Path = CHART,
    *options: str,
) -> None:
    """``helm upgrade`` with just these values."""
    helm(plane, "upgrade", release, *_release(plane, namespace, values, chart), *options)


def uninstall(plane: Cluster, namespace: str, release: str = RELEASE) -> None:
    """``helm uninstall``, waiting for the end."""
    helm(plane, "uninstall", release, f"--namespace={namespace}", "--wait")


def _release(plane: Cluster, namespace: str, values: Mapping[str, Any] | None, chart: Path) -> list[str]:
    folder = plane.folder / "values"
    folder.mkdir(exist_ok=True)
    file = folder / f"{secrets.token_hex(4)}.json"
    file.write_text(json.dumps(values or {}))
    return [str(chart), f"--namespace={namespace}", f"--values={file}", "--wait", "--timeout=60s"]


class Operator:
    """One replica of an installed release. Several may run at once, as replicas do; each is a context manager."""

    def __init__(
        self,
        plane: ControlPlane,
        namespace: str,
        release: str = RELEASE,
        *,
        through: Endpoint | None = None,
        environment: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
        detached: bool = False,
    ) -> None:
        """Read the Deployment; ``environment`` and ``arguments`` are added to it. Nothing runs before ``start``."""
        self.plane = plane
        self.namespace = namespace
        self.release = release
        self.port = free_port()
        self.token_port = free_port()
        self.deployment = self._find_deployment()
        self.identity = f"{self.deployment['metadata']['name']}-{secrets.token_hex(4)}"
        self.kubeconfig = plane.account_kubeconfig(
            namespace,
            self.account,
            server=through.url if through else None,
            ca_file=through.ca_file if through else None,
        )
        self.process = Process(
            f"operator {self.identity}",
            [*self._command(), *arguments],
            log=plane.folder / "operators" / f"{next(_numbers)}-{self.identity}.log",
            environment={**self._environment(), **(environment or {})},
            detached=detached,
        )
        plane.tenants.append(self.process)

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def account(self) -> str:
        """The ServiceAccount that the Deployment runs as."""
        return str(self._pod.get("serviceAccountName", "default"))

    def start(self) -> None:
        """Start and return when /readyz answers 200."""
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        """Start without waiting, for an operator that is not expected to become ready at once."""
        self.process.start()

    def await_ready(self, timeout: float = _START) -> None:
        """Return when /readyz answers 200."""
        self.process.until(self.ready, timeout, f"operator of {self.namespace} ready")

    def stop(self, timeout: float = 30) -> int | None:
        """End it as the kubelet does; its exit code."""
        return self.process.stop(timeout)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()

    def restart(self) -> None:
        """Stop and start, as a rollout does."""
        self.stop()
        self.start()

    def ready(self) -> bool:
        """Whether /readyz answers 200."""
        try:
            return self.http("/readyz")[0] == http.client.OK
        except OSError:
            return False

    def http(self, path: str) -> tuple[int, str]:
        """Status and body of a GET on its listener."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its full name, labels included as printed."""
        _, text = self.http("/metrics")
        samples = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in samples}

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that have these labels; 0.0 where there is none."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            value
            for sample, value in self.metrics().items()
            if sample.partition("{")[0] == name and all(part in sample for part in wanted)
        )

    def logs(self) -> list[dict[str, Any]]:
        """The log lines that are JSON objects."""
        lines = self.log_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def log_text(self) -> str:
        """The whole log as printed."""
        return self.process.log_text()

    @property
    def _pod(self) -> Manifest:
        pod: Manifest = self.deployment["spec"]["template"]["spec"]
        return pod

    @property
    def _container(self) -> Manifest:
        container: Manifest = self._pod["containers"][0]
        return container

    def _find_deployment(self) -> Manifest:
        found = self.plane.objects("deployments.apps", self.namespace, f"app.kubernetes.io/instance={self.release}")
        if len(found) != 1:
            raise LookupError(f"{len(found)} Deployments of release {self.release} in {self.namespace}, expected one")
        return found[0]

    def _command(self) -> list[str]:
        name, *fixed = self._container.get("command") or ["certrenewal"]
        options = [option for option in self._container.get("args", []) if not _REPLACED_OPTIONS.match(option)]
        return [str(program(name)), *fixed, *(self._expand(option) for option in options)]

    def _environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if _KEPT_VARIABLES.fullmatch(name)},
            **self._declared(),
            "PYTHONUNBUFFERED": "1",
            "KUBECONFIG": str(self.kubeconfig),
            "CERTRENEWAL_LISTEN": f"127.0.0.1:{self.port}",
            "CERTRENEWAL_IDENTITY": self.identity,
            **({"CERTRENEWAL_TOKEN_LISTEN": f"127.0.0.1:{self.token_port}"} if self._hands_out_tokens else {}),
        }

    @property
    def _hands_out_tokens(self) -> bool:
        return any(option.startswith("--token-listen=") for option in self._container.get("args", []))

    def _declared(self) -> dict[str, str]:
        return {entry["name"]: self._value(entry) for entry in self._container.get("env", [])}

    def _value(self, entry: Manifest) -> str:
        if "valueFrom" not in entry:
            return str(entry.get("value", ""))
        field = entry["valueFrom"].get("fieldRef", {}).get("fieldPath")
        fields = {
            "metadata.namespace": self.namespace,
            "metadata.name": self.identity,
            "spec.serviceAccountName": self.account,
            "spec.nodeName": "node-0",
            "status.podIP": "127.0.0.1",
        }
        if field not in fields:
            raise LookupError(f"the testbed cannot give {entry['name']} its value: {entry['valueFrom']}")
        return fields[field]

    def _expand(self, option: str) -> str:
        declared = self._declared()
        return re.sub(r"\$\((\w+)\)", lambda name: declared.get(name[1], name[0]), option)
