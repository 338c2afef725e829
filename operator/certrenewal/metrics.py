"""Which numbers does the operator tell?"""

from prometheus_client import Counter, Gauge, Histogram

CERTIFICATE_EXPIRY = Gauge(
    "certrenewal_certificate_expiry_timestamp_seconds", "When the certificate ends.", ["namespace", "name"]
)
CERTIFICATE_READY = Gauge(
    "certrenewal_certificate_ready", "1 where the Secret holds a valid certificate that fits.", ["namespace", "name"]
)
RENEWALS = Counter("certrenewal_renewals_total", "Certificates written.", ["route", "reason"])
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
SCHEDULE = Gauge("certrenewal_schedule_length", "Certificates with a next look.")
LOOK_SECONDS = Histogram("certrenewal_look_seconds", "How long a look at one certificate takes.")
API_REQUESTS = Counter("certrenewal_api_requests_total", "Requests to the API server.", ["method", "resource", "code"])
CA_REQUEST_SECONDS = Histogram(
    "certrenewal_ca_request_seconds",
    "How long the CA takes to answer.",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
)
