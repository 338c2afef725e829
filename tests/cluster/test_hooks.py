"""Each hook hears of each certificate once, whatever happens meanwhile, and nothing secret goes anywhere else."""

from __future__ import annotations

import re
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.site import LEASE, SYSTEM, Site, installed
from tests.conftest import MakeCA
from tests.testbed import manifests, tls
from tests.testbed.api import Manifest
from tests.testbed.controlplane import ControlPlane
from tests.testbed.faults import HttpProxy
from tests.testbed.operators import Operator
from tests.testbed.processes import until
from tests.testbed.receiver import Received, Receiver

DOCS = Path(__file__).parents[2] / "docs" / "hooks.md"


@pytest.fixture(scope="module")
def site(plane: ControlPlane, make_ca: MakeCA) -> Iterator[Site]:
    """The operator, allowed to call this machine."""
    values = {"hooks": {"allowedHosts": ["localhost", "127.0.0.1"]}}
    with installed(plane, make_ca(backdate="0s"), values=values, environment=LEASE) as running:
        yield running


@pytest.fixture(scope="module")
def pair(site: Site) -> tls.Pair:
    """The receivers' certificate, of the CA that also issues for the hooks."""
    certificate, key = site.ca.certificate("localhost", tls.LOOPBACK)
    return tls.Pair(certificate=certificate, key=key)


@pytest.fixture
def receiver(pair: tls.Pair, tmp_path: Path) -> Iterator[Receiver]:
    """Where hooks arrive."""
    with Receiver(pair, tmp_path) as running:
        yield running


def example(heading: str) -> Manifest:
    """The object under a heading of docs/hooks.md."""
    (found,) = re.findall(rf"^## {heading}\n.*?^```yaml\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    manifest: Manifest = yaml.safe_load(found)
    return manifest


def ask(site: Site, namespace: str, *hooks: dict[str, Any], **spec: Any) -> None:
    """A CertRenewal by hand with these hooks, which verify the receiver by the CA, by one way or the other."""
    asked = [hook if "caBundle" in hook else {"authority": "default", **hook} for hook in hooks]
    wish = {"names": [f"web-tls.{namespace}.svc"], "hooks": asked}
    site.plane.create(manifests.cert_renewal("web-tls", namespace, {**wish, **spec}))


def renew(site: Site, namespace: str, value: str = "1") -> str:
    """Have it renewed; the mark of the new certificate."""
    before = site.chain(namespace)
    site.plane.annotate("certrenewals", namespace, "web-tls", renew_now=value)
    return site.await_new(namespace, after=before).leaf.fingerprint[:16]


def delivered(site: Site, namespace: str, name: str = "web-tls") -> str:
    """Wait until every hook has heard of the certificate; its mark."""

    def told() -> str:
        mark = site.status(namespace, name).get("certificate", {}).get("fingerprint", "")[:16]
        hooks = site.status(namespace, name).get("hooks") or ()
        done = hooks and all((h["fingerprint"], h["state"]) == (mark, "Delivered") for h in hooks)
        return mark if done else ""

    mark = until(told, 20, f"the hooks of {namespace}/{name} delivered")
    site.await_condition(namespace, name, kind="HooksDelivered", status="True", reason="Delivered")
    return mark


def keys(requests: list[Received]) -> list[str]:
    """The idempotency keys."""
    return [request.idempotency_key for request in requests]


def test_the_docs_example_puts_a_client_certificate_into_grafana(
    site: Site, namespace: str, receiver: Receiver
) -> None:
    token = f"Bearer {secrets.token_hex(12)}"
    renewal = example("Upload a client certificate to Grafana")
    renewal["metadata"]["namespace"] = namespace
    renewal["spec"]["names"] = [f"grafana-client.{namespace}.svc"]
    (hook,) = renewal["spec"]["hooks"]
    hook["url"] = hook["url"].replace("grafana.example.com", f"localhost:{receiver.port}")
    site.plane.create(manifests.secret("grafana-token", namespace, {"authorization": token + "\n"}))

    site.plane.create(renewal)
    mark = delivered(site, namespace, "grafana-client")
    (request,) = receiver.requests()
    held = site.secret(namespace, "grafana-client")

    assert (request.method, request.path) == ("PUT", "/api/datasources/1")
    assert request.headers["Authorization"] == token
    assert request.headers["Content-Type"] == "application/json"
    assert request.idempotency_key == f"{mark}/grafana"
    assert request.json["jsonData"] == {"tlsAuth": True, "tlsAuthWithCACert": True}
    assert request.json["secureJsonData"] == {
        "tlsClientCert": manifests.decoded(held, "tls.crt").decode(),
        "tlsClientKey": manifests.decoded(held, "tls.key").decode(),
        "tlsCACert": manifests.decoded(held, "ca.crt").decode(),
    }


def test_the_docs_example_pings_by_annotation(site: Site, namespace: str, receiver: Receiver) -> None:
    """With the CA among the system's roots, which is what OpenSSL's own variable does."""
    secret = example("Ping a health check")
    secret["metadata"]["namespace"] = namespace
    url = secret["metadata"]["annotations"]["certrenewal.dev/ping-url"]
    path = url.removeprefix("https://hc-ping.com")
    secret["metadata"]["annotations"] |= manifests.prefixed(names=f"web.{namespace}.svc", ping_url=receiver.url(path))
    site.operator.stop()
    operator = Operator(site.plane, SYSTEM, environment={**LEASE, "SSL_CERT_FILE": str(site.ca.root_file)})
    operator.start()
    try:
        site.plane.create(secret)
        mark = delivered(site, namespace)
    finally:
        operator.stop()
        site.operator.start()

    (request,) = receiver.requests()
    assert (request.method, request.path, request.idempotency_key) == ("GET", path, f"{mark}/ping")


def test_a_receiver_of_an_unknown_root_is_sent_nothing(site: Site, namespace: str, receiver: Receiver) -> None:
    """The annotation verifies with the system's roots, which do not have the testbed's."""
    site.order(namespace, ping_url=receiver.url("/ping"))
    message = site.await_condition(namespace, kind="HooksDelivered", status="False", reason="HookFailing")

    assert "the certificate that localhost shows cannot be verified" in message
    assert receiver.requests() == []


def test_a_health_check_is_pinged_once_for_each_certificate(site: Site, namespace: str, receiver: Receiver) -> None:
    ask(site, namespace, {"name": "ping", "url": receiver.url("/ping/$(name)?s=$(serial)&until=$(notAfter)")})
    first = delivered(site, namespace)
    leaf = site.chain(namespace).leaf
    renew(site, namespace)
    second = delivered(site, namespace)

    assert keys(receiver.requests()) == [f"{first}/ping", f"{second}/ping"]
    until_then = leaf.not_after.strftime("%Y-%m-%dT%H%%3A%M%%3A%SZ")
    request = receiver.requests()[0]
    assert (request.method, request.body) == ("GET", b"")
    assert request.path == f"/ping/web-tls?s={leaf.serial}&until={until_then}"


def test_after_rollout_waits_until_the_workload_is_ready(site: Site, namespace: str, receiver: Receiver) -> None:
    ask(
        site,
        namespace,
        {"name": "early", "url": receiver.url("/early")},
        {"name": "late", "url": receiver.url("/late"), "after": "Rollout"},
    )
    first = delivered(site, namespace)
    site.plane.create(manifests.deployment("web", namespace, manifests.volume("web-tls"), never_ready=True))
    until(lambda: site.status(namespace).get("workloads"), 20, "the workload is known")

    second = renew(site, namespace)
    site.await_condition(namespace, kind="RolledOut", status="False", reason="Restarting")
    until(lambda: len(receiver.requests("/early")) == 2, 20, "the one that does not wait")
    words = "to be delivered: late (after the rollout)"
    until(lambda: site.message(namespace, kind="HooksDelivered") == words, 20, "one waits")
    waiting = keys(receiver.requests("/late"))

    ready = {"spec": {"template": {"metadata": {"labels": {"testbed.certrenewal.dev/never-ready": None}}}}}
    site.plane.merge_patch("deployments.apps", namespace, "web", ready)
    delivered(site, namespace)

    assert waiting == [f"{first}/late"]
    assert keys(receiver.requests("/late")) == [f"{first}/late", f"{second}/late"]


def test_a_receiver_that_fails_is_tried_again_and_told_once(site: Site, namespace: str, receiver: Receiver) -> None:
    receiver.answer(500, times=2)
    receiver.answer(429)
    ask(site, namespace, {"name": "ping", "url": receiver.url()})

    mark = delivered(site, namespace)
    renew(site, namespace)
    again = delivered(site, namespace)

    assert keys(receiver.requests()) == [f"{mark}/ping"] * 4 + [f"{again}/ping"]
    assert len(site.events(namespace, reason="HookFailing")) == 1
    until(lambda: len(site.events(namespace, reason="Delivered")) == 2, 10, "told")


def test_a_no_is_the_last_word_until_the_spec_changes(site: Site, namespace: str, receiver: Receiver) -> None:
    receiver.answer(403, phrase="Bearer hunter2")
    ask(site, namespace, {"name": "ping", "url": receiver.url("/one")}, {"name": "other", "url": receiver.url("/two")})

    def states() -> dict[str, str]:
        return {hook["name"]: hook["state"] for hook in site.status(namespace).get("hooks") or ()}

    until(lambda: sorted(states().values()) == ["Delivered", "Refused"], 20, "one refused, one delivered")
    message = site.message(namespace, kind="HooksDelivered")
    refused = next(name for name, state in states().items() if state == "Refused")
    before = len(receiver.requests())
    site.operator.restart()
    site.plane.annotate("certrenewals", namespace, "web-tls", seen="1")
    site.order(namespace, "another")
    site.await_ready(namespace, "another")
    unchanged = len(receiver.requests())
    site.plane.merge_patch("certrenewals", namespace, "web-tls", {"spec": {"restart": "Never"}})
    delivered(site, namespace)

    assert f"{refused}: localhost answered 403 Forbidden; the next attempt is for the next certificate" in message
    assert before == unchanged == 2
    assert len(receiver.requests()) == 3
    assert "hunter2" not in site.operator.log_text() + str(site.plane.objects("events", namespace))


def test_a_corrected_secret_is_noticed_after_a_no(site: Site, namespace: str, receiver: Receiver) -> None:
    """Also one that was corrected while no operator ran; what did not change is not sent again."""
    site.plane.create(manifests.secret("token", namespace, {"value": "wrong"}))
    receiver.answer(401, times=2)
    header = {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "token", "key": "value"}}}
    ask(site, namespace, {"name": "ping", "url": receiver.url(), "headers": [header]})
    message = site.await_condition(namespace, kind="HooksDelivered", status="False", reason="HookFailing")

    site.operator.restart()
    site.plane.annotate("certrenewals", namespace, "web-tls", seen="1")
    site.order(namespace, "another")
    site.await_ready(namespace, "another")
    unchanged = len(receiver.requests())
    site.plane.merge_patch("secrets", namespace, "token", {"data": {"value": manifests.encoded("wrong too")}})
    until(lambda: len(receiver.requests()) == 2, 20, "another value is tried")
    until(lambda: site.status(namespace)["hooks"][0]["attempts"] == 2, 20, "told")
    site.operator.stop()
    site.plane.merge_patch("secrets", namespace, "token", {"data": {"value": manifests.encoded("right")}})
    site.operator.start()
    delivered(site, namespace)

    assert "or a changed spec or Secret" in message
    assert unchanged == 1
    assert [request.headers["Authorization"] for request in receiver.requests()] == ["wrong", "wrong too", "right"]


def test_a_restarted_operator_delivers_nothing_twice(site: Site, namespace: str, receiver: Receiver) -> None:
    ask(site, namespace, {"name": "ping", "url": receiver.url(), "caBundle": site.ca.root_pem})
    first = delivered(site, namespace)

    site.operator.restart()
    second = renew(site, namespace)
    delivered(site, namespace)
    site.operator.restart()
    site.order(namespace, "another")
    site.await_ready(namespace, "another")

    assert keys(receiver.requests()) == [f"{first}/ping", f"{second}/ping"]


def test_a_clean_stop_tells_of_what_was_delivered(site: Site, namespace: str, receiver: Receiver) -> None:
    receiver.close()
    ask(site, namespace, {"name": "ping", "url": receiver.url()})
    until(receiver.requests, 20, "a request under way")
    said = site.operator.process.log_size()
    site.operator.process.signal(signal.SIGTERM)
    until(lambda: "stopping" in site.operator.process.log_text(said), 20, "it is about to stop")
    receiver.open()
    site.operator.stop()

    (entry,) = site.status(namespace)["hooks"]
    site.operator.start()
    delivered(site, namespace)

    assert entry["state"] == "Delivered"
    assert len(receiver.requests()) == 1


def test_a_kill_between_answer_and_status_repeats_it_under_the_same_key(
    site: Site, namespace: str, receiver: Receiver, slow_api: tuple[HttpProxy, Operator]
) -> None:
    proxy, operator = slow_api
    receiver.close()
    ask(site, namespace, {"name": "ping", "url": receiver.url()})
    until(receiver.requests, 20, "the first request")
    held = proxy.delay("PATCH", r"/certrenewals/web-tls/status", 3600)
    receiver.open()
    until(lambda: held.hits > 0, 20, "the operator is about to tell")

    operator.kill()
    proxy.remove(held)
    operator.start()
    mark = delivered(site, namespace)

    assert keys(receiver.requests()) == [f"{mark}/ping"] * 2


def test_a_status_that_could_not_be_written_repeats_nothing(
    site: Site, namespace: str, receiver: Receiver, slow_api: tuple[HttpProxy, Operator]
) -> None:
    proxy, _ = slow_api
    receiver.close()
    ask(site, namespace, {"name": "ping", "url": receiver.url()})
    until(receiver.requests, 20, "the first request")
    failing = proxy.answer("PATCH", r"/certrenewals/web-tls/status", 500, '{"message":"injected"}', times=3)
    receiver.open()
    delivered(site, namespace)

    assert failing.hits == 3
    assert len(receiver.requests()) == 1


@pytest.mark.parametrize(
    ("url", "named"),
    [
        (
            "https://grafana.example.com/api",
            "hooks.allowedHosts of the chart does not list grafana.example.com: add it",
        ),
        ("https://169.254.169.254/latest", "does not list 169.254.169.254"),
        ("https://[::1]/", "does not list ::1"),
    ],
    ids=["name", "metadata service", "loopback"],
)
def test_a_host_that_is_not_listed_is_not_called_and_the_value_is_named(
    site: Site, namespace: str, url: str, named: str
) -> None:
    before = site.operator.metric("certrenewal_hooks_total", outcome="Denied")
    ask(site, namespace, {"name": "ping", "url": url})

    message = site.await_condition(namespace, kind="HooksDelivered", status="False", reason="HookDenied")
    (event,) = until(lambda: site.events(namespace, reason="HookDenied"), 10, "told")

    assert named in message
    assert named in event["note"]
    assert site.operator.metric("certrenewal_hooks_total", outcome="Denied") == before + 1
    assert site.condition(namespace) == ("True", "Issued")


def test_a_host_that_gets_listed_hears_of_the_certificate_at_hand(
    site: Site, namespace: str, receiver: Receiver
) -> None:
    site.operator.stop()
    without = Operator(site.plane, SYSTEM, environment=LEASE, arguments=("--hooks-allowed-hosts=localhost",))
    without.start()
    try:
        ask(site, namespace, {"name": "ping", "url": receiver.url()})
        message = site.await_condition(namespace, kind="HooksDelivered", status="False", reason="HookDenied")
    finally:
        without.stop()
        site.operator.start()
    mark = delivered(site, namespace)

    assert "localhost resolves to 127.0.0.1, the API server's address: add 127.0.0.1 to hooks.allowedHosts" in message
    assert keys(receiver.requests()) == [f"{mark}/ping"]


def test_a_redirect_is_not_followed(
    site: Site, namespace: str, receiver: Receiver, pair: tls.Pair, tmp_path: Path
) -> None:
    with Receiver(pair, tmp_path) as elsewhere:
        receiver.answer(302, Location=elsewhere.url("/stolen", host="127.0.0.1"))
        body = '{"key": "$(tls.key)"}'
        ask(site, namespace, {"name": "put", "method": "PUT", "url": receiver.url("/here"), "body": body})
        (event,) = until(lambda: site.events(namespace, reason="HookFailing"), 20, "told")
        delivered(site, namespace)

        assert "localhost answered 302 Found, and redirects are not followed" in event["note"]
        assert elsewhere.requests() == []
        assert {request.path for request in receiver.requests()} == {"/here"}


def test_the_new_certificate_is_shown_as_client_certificate(
    site: Site, namespace: str, pair: tls.Pair, tmp_path: Path
) -> None:
    with Receiver(pair, tmp_path, clients=site.ca.root_file) as strict:
        ask(site, namespace, {"name": "ping", "url": strict.url(), "clientCertificate": True})
        first = delivered(site, namespace)
        renew(site, namespace)
        second = delivered(site, namespace)

        assert [(request.client or "")[:16] for request in strict.requests()] == [first, second]


def test_a_receiver_that_never_answers_delays_no_renewal_and_gets_the_newest(
    site: Site, namespace: str, receiver: Receiver
) -> None:
    receiver.close()
    ask(site, namespace, {"name": "ping", "url": receiver.url(), "timeout": "1m"})
    until(receiver.requests, 20, "a request under way")
    marks = [site.chain(namespace).leaf.fingerprint[:16], renew(site, namespace, "1"), renew(site, namespace, "2")]
    until(lambda: keys(receiver.requests())[-1].startswith(marks[-1]), 20, "the newest certificate is under way")
    receiver.open()
    mark = delivered(site, namespace)

    assert mark == marks[-1]
    assert set(keys(receiver.requests())) <= {f"{mark}/ping" for mark in marks}
    assert keys(receiver.requests()).count(f"{mark}/ping") == 1


def test_a_certificate_that_was_found_is_told_of_to_nobody(site: Site, namespace: str, receiver: Receiver) -> None:
    crt, key = site.ca.certificate(f"web-tls.{namespace}.svc")
    site.plane.create(manifests.tls_secret("web-tls", namespace, crt, key, site.ca.root_pem))
    ask(site, namespace, {"name": "ping", "url": receiver.url()})
    site.await_condition(namespace, status="True", reason="Adopted")
    adopted = site.condition(namespace, kind="HooksDelivered")
    mark = renew(site, namespace)
    delivered(site, namespace)

    assert adopted == ("True", "Delivered")
    assert keys(receiver.requests()) == [f"{mark}/ping"]


def test_a_hook_that_comes_later_hears_once_and_one_that_goes_leaves_nothing(
    site: Site, namespace: str, receiver: Receiver
) -> None:
    ask(site, namespace)
    site.await_ready(namespace)
    without = site.condition(namespace, kind="HooksDelivered")
    hook = {"name": "ping", "url": receiver.url("/old"), "authority": "default"}
    site.plane.merge_patch("certrenewals", namespace, "web-tls", {"spec": {"hooks": [hook]}})
    mark = delivered(site, namespace)
    changed = {"spec": {"hooks": [{**hook, "url": receiver.url("/new")}]}}
    generation = site.plane.merge_patch("certrenewals", namespace, "web-tls", changed)["metadata"]["generation"]
    until(lambda: site.status(namespace)["observedGeneration"] == generation, 20, "looked at")
    site.plane.merge_patch("certrenewals", namespace, "web-tls", {"spec": {"hooks": None}})
    until(lambda: "hooks" not in site.status(namespace), 20, "nothing is told of hooks")

    assert without == ("", "")
    assert keys(receiver.requests()) == [f"{mark}/ping"]
    assert site.condition(namespace, kind="HooksDelivered") == ("", "")


def test_a_missing_header_secret_is_named_and_awaited(site: Site, namespace: str, receiver: Receiver) -> None:
    header = {"name": "X-Token", "valueFrom": {"secretKeyRef": {"name": "later", "key": "token"}}}
    ask(site, namespace, {"name": "ping", "url": receiver.url(), "headers": [header]})

    message = site.await_condition(namespace, kind="HooksDelivered", status="False", reason="HookFailing")
    site.plane.create(manifests.secret("later", namespace, {"token": "t0"}))
    delivered(site, namespace)

    assert message == "ping: key 'token' of Secret later does not exist"
    assert [request.headers["X-Token"] for request in receiver.requests()] == ["t0"]


def test_neither_key_nor_token_is_anywhere_but_in_the_request(site: Site, namespace: str, receiver: Receiver) -> None:
    token, path, literal = (secrets.token_hex(12) for _ in range(3))
    site.plane.create(manifests.secret("token", namespace, {"value": token}))
    receiver.answer(500)
    headers = [
        {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "token", "key": "value"}}},
        {"name": "X-Literal", "value": literal},
    ]
    body = '{"key": "$(tls.key)", "crt": "$(tls.crt)"}'
    url = receiver.url(f"/{path}")
    ask(site, namespace, {"name": "post", "url": url, "headers": headers, "body": body, "clientCertificate": True})
    delivered(site, namespace)
    key = manifests.decoded(site.secret(namespace), "tls.key").decode()
    told = "".join(
        (
            site.operator.log_text(),
            str(site.status(namespace)),
            str(site.plane.objects("events", namespace)),
            site.operator.http("/metrics")[1],
        )
    )

    assert [request.json["key"] for request in receiver.requests()] == [key, key]
    assert {request.headers["Authorization"] for request in receiver.requests()} == {token}
    for secret in (token, path, literal, key.splitlines()[1]):
        assert secret not in told


def test_what_cannot_be_read_is_refused_by_name(site: Site, namespace: str) -> None:
    site.order(namespace, ping_url="http://user:hunter2@hc-ping.com/uuid")
    site.plane.create(
        manifests.cert_renewal(
            "unknown", namespace, {"hooks": [{"name": "a", "url": "https://a.example.com", "body": '["$(tls.pem)"]'}]}
        )
    )

    annotation = site.await_condition(namespace, status="False", reason="InvalidSpec")
    field = site.await_condition(namespace, "unknown", status="False", reason="InvalidSpec")

    assert "annotation certrenewal.dev/ping-url" in annotation
    assert "https://HOST" in annotation
    assert "hunter2" not in annotation
    assert "spec.hooks[0].body: '$(tls.pem)' cannot be read" in field


@pytest.fixture
def any_depth() -> Iterator[None]:
    """The test itself has to write and read what the operator cannot."""
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(usual)


@pytest.mark.usefixtures("any_depth")
def test_a_body_of_any_depth_stops_nobody_else(site: Site, namespace: str, receiver: Receiver) -> None:
    """What Python cannot parse as it stands is shown by a watch, by a list, and by the answer to a write."""
    deepest: dict[str, Any] = {}
    for _ in range(1_200):
        deepest = {"a": deepest}
    ask(site, namespace, {"name": "ping", "url": receiver.url(), "body": {"a": deepest}})
    message = site.await_condition(namespace, status="False", reason="InvalidSpec")
    site.order(namespace, "beside")
    site.await_ready(namespace, "beside")

    site.operator.restart()
    site.order(namespace, "after")
    site.await_ready(namespace, "after")
    body = {"serial": "$(serial)", "of": [{"name": "$(name)"}]}
    hook = {"name": "ping", "url": receiver.url(), "body": body, "authority": "default"}
    site.plane.merge_patch("certrenewals", namespace, "web-tls", {"spec": {"hooks": [hook]}})
    delivered(site, namespace)

    assert "spec.hooks[0].body" in message
    assert "32 levels" in message
    (request,) = receiver.requests()
    assert (request.method, request.json) == (
        "POST",
        {"serial": site.status(namespace)["certificate"]["serial"], "of": [{"name": "web-tls"}]},
    )
