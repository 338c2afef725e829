"""Which numbers does the operator tell?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class Sample(NamedTuple):
    """What is told of one certificate."""

    namespace: str
    name: str
    ready: bool
    failing: bool
    ends: float  # seconds since the epoch, 0 where there is none
    lifetime: float  # seconds, 0 where there is none
    due: float  # seconds since the epoch, 0 where nothing is planned


class Certificates(Collector):
    """What is told of each certificate, gathered when it is asked for: a gauge would keep a kilobyte for each."""

    def __init__(self) -> None:
        self.gather: Callable[[], Iterable[Sample]] = tuple

    def describe(self) -> tuple[GaugeMetricFamily, ...]:
        """The names, as a registry wants to know them beforehand."""
        labels = ("namespace", "name")
        return (
            GaugeMetricFamily(
                "certrenewal_certificate_expiry_timestamp_seconds", "When the certificate ends.", labels=labels
            ),
            GaugeMetricFamily(
                "certrenewal_certificate_ready",
                "1 where the Secret holds a valid certificate that fits.",
                labels=labels,
            ),
            GaugeMetricFamily(
                "certrenewal_certificate_failing", "1 where the next certificate cannot be had so far.", labels=labels
            ),
            GaugeMetricFamily(
                "certrenewal_certificate_lifetime_seconds", "The whole life of the certificate.", labels=labels
            ),
            GaugeMetricFamily(
                "certrenewal_certificate_renewal_timestamp_seconds", "When the certificate is renewed.", labels=labels
            ),
        )

    def collect(self) -> Iterable[Metric]:
        """All of them, at this moment."""
        expiry, ready, failing, lifetime, due = families = self.describe()
        for sample in self.gather():
            labels = (sample.namespace, sample.name)
            ready.add_metric(labels, sample.ready)
            failing.add_metric(labels, sample.failing)
            if sample.ends:
                expiry.add_metric(labels, sample.ends)
                lifetime.add_metric(labels, sample.lifetime)
                due.add_metric(labels, sample.due)
        return families


CERTIFICATES = Certificates()
REGISTRY.register(CERTIFICATES)
RENEWALS = Counter("certrenewal_renewals_total", "Certificates written.", ["route", "reason"])
LATENESS = Histogram(
    "certrenewal_renewal_lateness_seconds",
    "How long after its planned time a certificate was renewed.",
    buckets=(0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800),
)
FAILURES = Counter("certrenewal_failures_total", "Attempts that failed, and refusals.", ["reason"])
TOKENS = Counter("certrenewal_tokens_total", "One-time tokens for others, by what became of them.", ["outcome"])
TOKEN_ENDPOINT_EXPIRY = Gauge(
    "certrenewal_token_endpoint_expiry_timestamp_seconds",
    "When the token endpoint's own certificate ends; 0 where it has none and does not listen.",
)
AUTHORITY_READY = Gauge("certrenewal_authority_ready", "1 where the authority can be used.", ["authority"])
LEADER = Gauge("certrenewal_leader", "1 on the replica that acts.")
RESTARTS = Counter("certrenewal_restarts_total", "Workloads restarted.", ["kind"])
RELOADS = Counter("certrenewal_reloads_total", "Workloads that reloaded without a restart.", ["kind"])
RESTART_QUEUE = Gauge("certrenewal_restart_queue_length", "Workloads that wait for their restart.")
RESTART_DEADLINE = Gauge(
    "certrenewal_restart_queue_first_expiry_timestamp_seconds",
    "When the first certificate ends that a waiting workload runs; 0 where none is known.",
)
REVOCATIONS = Counter("certrenewal_revocations_total", "Certificates revoked, and attempts to.", ["outcome"])
HOOKS = Counter("certrenewal_hooks_total", "Attempts to deliver a hook.", ["outcome"])
# There from the start: what first shows with a value of 1 has not increased for Prometheus.
for _outcome in ("revoked", "refused", "failed"):
    REVOCATIONS.labels(outcome=_outcome)
for _outcome in ("Delivered", "Failing", "Refused", "Denied"):
    HOOKS.labels(outcome=_outcome)
SCHEDULE = Gauge("certrenewal_schedule_length", "Certificates with a next look.")
LOOK_SECONDS = Histogram("certrenewal_look_seconds", "How long a look at one certificate takes.")
API_REQUESTS = Counter("certrenewal_api_requests_total", "Requests to the API server.", ["method", "resource", "code"])
CA_REQUEST_SECONDS = Histogram(
    "certrenewal_ca_request_seconds",
    "How long the CA takes to answer.",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
)
