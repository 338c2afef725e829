"""Which knobs does the operator have? Read from options and ``CERTRENEWAL_…`` variables by the command line."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from datetime import timedelta

from certrenewal.domain.hosts import Allowed
from certrenewal.domain.kinds import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One process's settings; contract §7 names the options."""

    listen_host: str = "0.0.0.0"  # noqa: S104 - probes and metrics are for the cluster
    listen_port: int = 8080
    namespace: str = "default"
    identity: str = field(default_factory=socket.gethostname)
    watch_namespaces: tuple[str, ...] = ()
    log_level: str = "info"
    cluster_domain: str = "cluster.local"
    workers: int = 32
    restarts_per_minute: int = 60
    restarts_per_minute_in_namespace: int = 0
    restarts_cooldown: timedelta = timedelta(seconds=10)
    restarts_together: int = 10
    restarts_touch_pods: bool = True
    restarts_signal: bool = False
    restarts_honour_reloader: bool = False
    restarts_report_pods: bool = False
    extra_workloads: tuple[Resource, ...] = ()
    revocation_grace: timedelta = timedelta(minutes=5)
    trust_bundles: bool = True
    hooks_allowed_hosts: Allowed = ()
    token_listen: tuple[str, int] | None = None
    token_names: tuple[str, ...] = ()
    token_authority: str = "default"
    tokens_per_minute: int = 10
    lease_duration: timedelta = timedelta(seconds=15)
