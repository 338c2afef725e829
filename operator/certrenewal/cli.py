"""What can be typed: `certrenewal operator`, with options that are also CERTRENEWAL_… variables."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
from datetime import timedelta

import click

from certrenewal import __version__, logs
from certrenewal.domain.durations import parse_duration
from certrenewal.domain.hosts import Allowed, parse_entry
from certrenewal.domain.kinds import Resource, parse_resource
from certrenewal.domain.names import InvalidName, parse_names
from certrenewal.settings import Settings


class _Duration(click.ParamType[timedelta]):
    """A Go duration, 0s allowed."""

    name = "duration"

    def convert(self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        if re.fullmatch(r"0|(0+(\.0*)?(ns|us|µs|ms|s|m|h))+", value):
            return timedelta(0)
        try:
            return parse_duration(value)
        except ValueError as refusal:
            self.fail(str(refusal), param, ctx)


class _Listen(click.ParamType[tuple[str, int]]):
    """HOST:PORT."""

    name = "host:port"

    def convert(
        self, value: str | tuple[str, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            self.fail(f"{value!r} is not HOST:PORT, such as 0.0.0.0:8080", param, ctx)
        return host.strip("[]"), int(port)


class _Names(click.ParamType[tuple[str, ...]]):
    """A comma-separated list."""

    name = "a,b"

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(name.strip() for name in value.split(",") if name.strip())


class _Resources(click.ParamType[tuple[Resource, ...]]):
    """A comma-separated list of kinds, as group/version/resource."""

    name = "group/version/resource,…"

    def convert(
        self, value: str | tuple[Resource, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Resource, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(dict.fromkeys(parse_resource(part.strip()) for part in value.split(",") if part.strip()))
        except ValueError as refusal:
            self.fail(str(refusal), param, ctx)


class _Hosts(click.ParamType[Allowed]):
    """A comma-separated list of hosts."""

    name = "host,…"

    def convert(self, value: str | Allowed, param: click.Parameter | None, ctx: click.Context | None) -> Allowed:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(parse_entry(text.strip()) for text in value.split(",") if text.strip())
        except ValueError as refusal:
            self.fail(str(refusal), param, ctx)


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Keep the certificates in annotated Kubernetes Secrets fresh through step-ca."""


@main.command()
@click.option(
    "--listen",
    type=_Listen(),
    default="0.0.0.0:8080",
    show_default=True,
    envvar="CERTRENEWAL_LISTEN",
    show_envvar=True,
    help="Where /healthz, /readyz and /metrics are served.",
)
@click.option(
    "--namespace",
    default="default",
    show_default=True,
    envvar="CERTRENEWAL_NAMESPACE",
    show_envvar=True,
    help="The namespace of the Lease.",
)
@click.option(
    "--identity",
    default=socket.gethostname,
    envvar="CERTRENEWAL_IDENTITY",
    show_envvar=True,
    show_default="the host name",
    help="This replica's name in the Lease.",
)
@click.option(
    "--watch-namespaces",
    type=_Names(),
    default="",
    envvar="CERTRENEWAL_WATCH_NAMESPACES",
    show_envvar=True,
    help="Namespaces to act in; all where empty.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
    envvar="CERTRENEWAL_LOG_LEVEL",
    show_envvar=True,
    help="The least severe lines that are logged.",
)
@click.option(
    "--cluster-domain",
    default="cluster.local",
    show_default=True,
    envvar="CERTRENEWAL_CLUSTER_DOMAIN",
    show_envvar=True,
    help="The cluster's DNS domain: namespaces own their service names under it.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=32,
    show_default=True,
    envvar="CERTRENEWAL_WORKERS",
    show_envvar=True,
    help="Certificates that are worked on at the same time.",
)
@click.option(
    "--restarts-per-minute",
    type=click.IntRange(1, 60000),
    default=60,
    show_default=True,
    envvar="CERTRENEWAL_RESTARTS_PER_MINUTE",
    show_envvar=True,
    help="Restarts of workloads, at most.",
)
@click.option(
    "--restarts-per-minute-in-namespace",
    type=click.IntRange(0, 60000),
    default=0,
    show_default=True,
    envvar="CERTRENEWAL_RESTARTS_PER_MINUTE_IN_NAMESPACE",
    show_envvar=True,
    help="Restarts of workloads of one namespace, at most; 0: no limit but that of the cluster.",
)
@click.option(
    "--restarts-cooldown",
    type=_Duration(),
    default="10s",
    show_default=True,
    envvar="CERTRENEWAL_RESTARTS_COOLDOWN",
    show_envvar=True,
    help="The least time between two restarts of one workload.",
)
@click.option(
    "--restarts-together",
    type=click.IntRange(0, 50),
    default=10,
    show_default=True,
    envvar="CERTRENEWAL_RESTARTS_TOGETHER",
    show_envvar=True,
    help="The percentage of its life within which a certificate is renewed with another one of the same workload.",
)
@click.option(
    "--restarts-touch-pods/--no-restarts-touch-pods",
    default=True,
    show_default=True,
    envvar="CERTRENEWAL_RESTARTS_TOUCH_PODS",
    show_envvar=True,
    help="Annotate pods that are not restarted, so that their kubelet brings the new files at once.",
)
@click.option(
    "--restarts-signal/--no-restarts-signal",
    default=False,
    show_default=True,
    envvar="CERTRENEWAL_RESTARTS_SIGNAL",
    show_envvar=True,
    help="Run the reload commands of workloads that ask for a signal instead of a restart.",
)
@click.option(
    "--restarts-honour-reloader/--no-restarts-honour-reloader",
    default=False,
    show_default=True,
    envvar="CERTRENEWAL_RESTARTS_HONOUR_RELOADER",
    show_envvar=True,
    help="Restart just those workloads that ask Stakater's Reloader for it, or certrenewal itself.",
)
@click.option(
    "--restarts-report-pods/--no-restarts-report-pods",
    default=False,
    show_default=True,
    envvar="CERTRENEWAL_RESTARTS_REPORT_PODS",
    show_envvar=True,
    help="Name bare Pods that use a certificate in the status of its CertRenewal.",
)
@click.option(
    "--extra-workloads",
    type=_Resources(),
    default="",
    envvar="CERTRENEWAL_EXTRA_WORKLOADS",
    show_envvar=True,
    help="Custom resources with a pod template that are restarted too, such as argoproj.io/v1alpha1/rollouts.",
)
@click.option(
    "--revocation-grace",
    type=_Duration(),
    default="5m",
    show_default=True,
    envvar="CERTRENEWAL_REVOCATION_GRACE",
    show_envvar=True,
    help="How long a replaced certificate is left before it is revoked, where that is asked for.",
)
@click.option(
    "--trust-bundles/--no-trust-bundles",
    default=True,
    show_default=True,
    envvar="CERTRENEWAL_TRUST_BUNDLES",
    show_envvar=True,
    help="Keep an authority's roots in a ConfigMap of every namespace that asks for them.",
)
@click.option(
    "--hooks-allowed-hosts",
    type=_Hosts(),
    default="",
    envvar="CERTRENEWAL_HOOKS_ALLOWED_HOSTS",
    show_envvar=True,
    help="Hosts that hooks may call: names, *.NAME, IP addresses and networks, each with :PORT or without; none where "
    "empty.",
)
@click.option(
    "--token-listen",
    type=_Listen(),
    default=None,
    envvar="CERTRENEWAL_TOKEN_LISTEN",
    show_envvar=True,
    help="Where pods get one-time tokens over HTTPS; nowhere where it is not set.",
)
@click.option(
    "--token-names",
    type=_Names(),
    default="",
    envvar="CERTRENEWAL_TOKEN_NAMES",
    show_envvar=True,
    help="The names in the token endpoint's own certificate: those of its Service.",
)
@click.option(
    "--token-authority",
    default="default",
    show_default=True,
    envvar="CERTRENEWAL_TOKEN_AUTHORITY",
    show_envvar=True,
    help="The CertAuthority that signs the token endpoint's own certificate.",
)
@click.option(
    "--tokens-per-minute",
    type=click.IntRange(1, 60000),
    default=10,
    show_default=True,
    envvar="CERTRENEWAL_TOKENS_PER_MINUTE",
    show_envvar=True,
    help="Requests to the token endpoint by one ServiceAccount, at most, for each replica.",
)
@click.option(
    "--lease-duration",
    type=_Duration(),
    default="15s",
    show_default=True,
    envvar="CERTRENEWAL_LEASE_DURATION",
    show_envvar=True,
    help="How long a standby waits for a leader that is silent.",
)
def operator(listen: tuple[str, int], **options: object) -> None:
    """Run the operator: what the chart's Deployment runs."""
    if options["token_listen"] and not options["token_names"]:
        raise click.UsageError("--token-listen needs --token-names: the names by which its Service is called")
    try:
        parse_names(options["token_names"])  # type: ignore[arg-type]
    except InvalidName as refusal:
        raise click.UsageError(f"--token-names: {refusal}") from None
    settings = Settings(listen_host=listen[0], listen_port=listen[1], **options)  # type: ignore[arg-type]
    logs.configure(settings.log_level)
    asyncio.run(_operate(settings))


async def _operate(settings: Settings) -> None:
    from certrenewal.controller import handlers
    from certrenewal.controller.operator import Operator
    from certrenewal.kube.client import load_configuration

    gc.freeze()  # what was imported stays: the collector need not visit it
    await handlers.run(Operator(settings, await load_configuration()))
