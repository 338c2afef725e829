"""What can tests ask of any cluster of theirs: kubectl, accounts of its own, counted and recorded requests."""

from __future__ import annotations

import datetime
import json
import re
import secrets
import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.testbed import tools
from tests.testbed.api import Api, Manifest, write_kubeconfig

_COUNTER = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<value>\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Request(NamedTuple):
    """What an API request was about: the key of ``request_counts``."""

    verb: str
    group: str
    resource: str
    subresource: str


class Cluster(Api):
    """The administrator's client of a cluster whose API server writes ``audit.log`` into ``folder``."""

    def __init__(self, folder: Path, server: str, ca_file: Path, admin_token: str) -> None:
        """Connect on first use; ``kubeconfig`` is written at once."""
        super().__init__(server, ca_file, admin_token)
        self.folder = folder
        self.server = server
        self.ca_file = ca_file
        self.admin_token = admin_token
        self.kubeconfig = write_kubeconfig(
            folder / "admin.kubeconfig", server=server, ca_file=ca_file, token=admin_token
        )
        self._accounts: list[Api] = []

    def close_all(self) -> None:
        """Close the connections of the administrator and of every account."""
        for client in (self, *self._accounts):
            client.close()

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """What kubectl prints, as the administrator; with ``check=False`` its error output too."""
        outcome = subprocess.run(
            [
                tools.path("kubectl"),
                f"--kubeconfig={self.kubeconfig}",
                f"--cache-dir={self.folder / 'kubectl'}",
                *arguments,
            ],
            input=stdin,
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if check and outcome.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)} failed: {outcome.stderr.strip()}\n{outcome.stdout}")
        return outcome.stdout if check else outcome.stdout + outcome.stderr

    def account_token(self, namespace: str, name: str, *, audience: str = "") -> str:
        """A token of the ServiceAccount, good for 30 days, for the API server or as a pod projects it for ``audience``."""
        path = self.resource("serviceaccounts").path(namespace, name) + "/token"
        spec = {"expirationSeconds": 30 * 24 * 3600, **({"audiences": [audience]} if audience else {})}
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str(self.api("POST", path, asked)["status"]["token"])

    def account_kubeconfig(
        self, namespace: str, name: str, *, server: str | None = None, ca_file: Path | None = None
    ) -> Path:
        """A kubeconfig with the ServiceAccount's rights alone; ``server`` and ``ca_file`` lead through a proxy."""
        return write_kubeconfig(
            self.folder / "accounts" / f"{namespace}-{name}-{secrets.token_hex(4)}.kubeconfig",
            server=server or self.server,
            ca_file=ca_file or self.ca_file,
            token=self.account_token(namespace, name),
            namespace=namespace,
        )

    def account(self, namespace: str, name: str) -> Api:
        """A client that has just the ServiceAccount's rights."""
        client = Api(self.server, self.ca_file, self.account_token(namespace, name))
        self._accounts.append(client)
        return client

    def request_counts(self) -> Counter[Request]:
        """How many requests the API server has answered, everyone's."""
        counts: Counter[Request] = Counter()
        for line in _COUNTER.finditer(self.raw("GET", "/metrics", accept="*/*")):
            labels = dict(_LABEL.findall(line["labels"]))
            counts[Request(*(labels[field] for field in Request._fields))] += int(float(line["value"]))
        return counts

    def audit(self, user: str = "", *, since: datetime.datetime | None = None) -> list[Manifest]:
        """One audit record per request (a watch counts from its start) of one account's full name, or of all.

        The testbed's own users are not recorded.
        """
        records: dict[str, Manifest] = {}
        for line in (self.folder / "audit.log").read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            record: Manifest = json.loads(line)
            if user in ("", record["user"]["username"]) and _since(record, since):
                records[record["auditID"]] = record
        return list(records.values())


def account_name(namespace: str, name: str) -> str:
    """The full user name of a ServiceAccount, as ``audit`` takes it."""
    return f"system:serviceaccount:{namespace}:{name}"


def _since(record: Manifest, moment: datetime.datetime | None) -> bool:
    received = datetime.datetime.fromisoformat(record["requestReceivedTimestamp"])
    return moment is None or received >= moment


def audit_policy(own_users: list[str]) -> Manifest:
    """Which requests are recorded: one line for each that is none of the testbed's own users'."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "users": [*own_users, "system:apiserver", "system:anonymous"]},
            {"level": "Metadata"},
        ],
    }
