"""What servers really show is told, and nothing waits for it: real TLS servers behind Services and EndpointSlices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from certrenewal.domain.certificate import Chain, parse_chain
from tests.cluster.site import SYSTEM, Site, authority, condition_of, installed
from tests.conftest import MakeCA
from tests.testbed import manifests, operators
from tests.testbed.api import ApiError, Manifest
from tests.testbed.controlplane import ControlPlane
from tests.testbed.processes import until
from tests.testbed.servers import TlsServer, endpoint_slice, own_address, service
from tests.testbed.tls import Pair

VERIFY = {"restarts": {"verify": True}}
AGAIN = 45.0  # it is asked again after 10 s, and after 30 s more

Serve = Callable[..., TlsServer]


@pytest.fixture(scope="module")
def site(plane: ControlPlane, make_ca: MakeCA) -> Iterator[Site]:
    """The operator, with the right to look at what is served."""
    try:
        own_address()
    except OSError:
        pytest.skip("this machine has no address but loopback, which no EndpointSlice may hold")
    with installed(plane, make_ca(backdate="0s"), values=VERIFY) as running:
        yield running


@pytest.fixture
def serve(site: Site, namespace: str, tmp_path: Path) -> Iterator[Serve]:
    """A factory of servers behind Service ``web``, port 443; each shows the pair in the Secret, or the one given."""
    with ExitStack() as servers:
        site.plane.create(service("web", namespace, {"https": 443, "metrics": 9090}))

        def start(name: str, pair: Pair | None = None, *, ready: bool = True) -> TlsServer:
            server = servers.enter_context(TlsServer(tmp_path, pair or held(site, namespace)))
            ports = {"https": server.port, "metrics": 9}
            site.plane.create(endpoint_slice(name, namespace, "web", server.address, ports, ready=ready))
            return server

        yield start


def ordered(site: Site, namespace: str, **wish: str) -> None:
    """A Secret for the names of Service ``web``, unless ``wish`` says otherwise."""
    site.order(namespace, **{"names": f"web.{namespace}.svc", **wish})


def held(site: Site, namespace: str) -> Pair:
    """The pair in the Secret."""
    found = site.secret(namespace)
    return Pair(
        certificate=manifests.decoded(found, "tls.crt").decode(), key=manifests.decoded(found, "tls.key").decode()
    )


def verified(site: Site, namespace: str, verify: str = "443") -> None:
    """Ask that the served certificate is looked at."""
    site.plane.annotate("secrets", namespace, "web-tls", verify=verify)


def renewed(site: Site, namespace: str, before: Chain) -> Chain:
    """Ask for another certificate and wait for it."""
    site.plane.annotate("secrets", namespace, "web-tls", renew_now=before.leaf.serial)
    return site.await_new(namespace, after=before)


def asked_for(site: Site, namespace: str) -> int:
    """The generation that the condition Serving speaks of."""
    return int(condition_of(site.status(namespace), "Serving")["observedGeneration"])


def seen(site: Site, namespace: str, status: str, reason: str = "", patience: float = 20) -> str:
    """Wait for the condition Serving; its message."""

    def there() -> bool:
        found = site.condition(namespace, kind="Serving")
        return bool(found[0] == status) and reason in ("", found[1])

    until(there, patience, f"Serving={status} {reason} in {namespace}", log=site.operator.log_text)
    return site.message(namespace, kind="Serving")


def told(site: Site, namespace: str, reason: str) -> list[Manifest]:
    """The Events of that reason, which follow the condition."""
    return until(lambda: site.events(namespace, reason=reason), 20, f"an Event {reason} in {namespace}")


def test_the_same_certificate_at_every_endpoint_is_serving_and_asked_once(
    site: Site, namespace: str, serve: Serve
) -> None:
    ordered(site, namespace)
    chain = site.await_ready(namespace)
    servers = [serve(name) for name in ("web-a", "web-b", "web-c")]
    ignored = serve("web-d", ready=False)

    verified(site, namespace)
    message = seen(site, namespace, "True", "Serving")
    first = asked_for(site, namespace)
    once = [server.handshakes for server in servers]
    site.plane.annotate("secrets", namespace, "web-tls", restart="Never")
    until(lambda: asked_for(site, namespace) > first, 20, "asked again for another spec")

    assert message == f"3 of 3 endpoints of Service web serve serial {chain.leaf.serial}"
    assert once == [1, 1, 1]
    assert [server.handshakes for server in servers] == [2, 2, 2]
    assert ignored.handshakes == 0
    assert site.events(namespace, reason="Serving") == []


def test_an_endpoint_that_keeps_the_old_certificate_is_named_until_it_reads_the_new_one(
    site: Site, namespace: str, serve: Serve
) -> None:
    ordered(site, namespace, verify="web:443")
    before = site.await_ready(namespace)
    fresh, stale = serve("web-a"), serve("web-b")
    seen(site, namespace, "True", patience=AGAIN)

    after = renewed(site, namespace, before)
    fresh.load(held(site, namespace))
    message = seen(site, namespace, "False", "ServingOther")
    warned = told(site, namespace, "ServingOther")
    stale.load(held(site, namespace))
    healed = seen(site, namespace, "True", patience=AGAIN)

    assert f"{stale} (serial {before.leaf.serial})" in message
    assert after.leaf.serial in healed
    assert [event["type"] for event in warned] == ["Warning"]
    assert len(site.events(namespace, reason="ServingOther")) == 1
    assert site.condition(namespace) == ("True", "Renewed")


def test_nobody_who_listens_is_not_serving(site: Site, namespace: str, serve: Serve) -> None:
    ordered(site, namespace)
    site.await_ready(namespace)
    gone = serve("web-a")
    gone.stop()

    verified(site, namespace)
    message = seen(site, namespace, "False", "NotServing")

    assert f"no TLS server answers at {gone} (Connection refused)" in message
    assert [event["type"] for event in told(site, namespace, "NotServing")] == ["Warning"]


def test_a_service_without_ready_endpoints_is_not_serving(site: Site, namespace: str, serve: Serve) -> None:
    ordered(site, namespace)
    site.await_ready(namespace)
    serve("web-a", ready=False)

    verified(site, namespace)

    assert "no ready endpoint for port 443" in seen(site, namespace, "False", "NotServing")


def test_nobody_is_asked_before_the_rollout_is_complete(site: Site, namespace: str, serve: Serve) -> None:
    ordered(site, namespace, verify="443")
    before = site.await_ready(namespace)
    server = serve("web-a")
    site.plane.create(manifests.deployment("web", namespace, manifests.volume("web-tls")))
    site.await_rolled_out(namespace)
    seen(site, namespace, "True", patience=AGAIN)
    never = {"spec": {"template": {"metadata": {"labels": {manifests.NEVER_READY: "true"}}}}}
    site.plane.merge_patch("deployments.apps", namespace, "web", never)
    site.await_condition(namespace, kind="RolledOut", status="False")
    kept, handshakes = site.condition(namespace, kind="Serving"), server.handshakes

    renewed(site, namespace, before)
    site.await_condition(namespace, kind="RolledOut", status="False", reason="Restarting")
    message = seen(site, namespace, "Unknown", "ServingUnknown")
    early = server.handshakes
    server.load(held(site, namespace))
    ready = {"spec": {"template": {"metadata": {"labels": {manifests.NEVER_READY: None}}}}}
    site.plane.merge_patch("deployments.apps", namespace, "web", ready)
    seen(site, namespace, "True")

    assert kept == ("True", "Serving")
    assert "once the rollout is complete" in message
    assert early == handshakes
    assert server.handshakes == handshakes + 1
    assert site.condition(namespace, kind="RolledOut") == ("True", "RolledOut")


@pytest.mark.parametrize("by_hand", [False, True], ids=["annotation", "CertRenewal"])
def test_a_host_of_another_namespace_is_refused(site: Site, namespace: str, serve: Serve, by_hand: bool) -> None:
    host = "web.kube-system.svc"
    if by_hand:
        spec = {"names": [f"web.{namespace}.svc"], "verify": {"port": 443, "host": host}}
        site.plane.create(manifests.cert_renewal("web-tls", namespace, spec))
    else:
        ordered(site, namespace, verify=f"{host}:443")

    message = site.await_condition(namespace, status="False", reason="InvalidSpec")

    assert ("spec.verify.host" if by_hand else "annotation certrenewal.dev/verify") in message
    assert f"name a Service of namespace {namespace}" in message
    assert site.condition(namespace, kind="Serving") == ("", "")


@pytest.mark.parametrize(
    ("names", "verify", "words"),
    [
        ("shop.example.com", "443", "name one in spec.verify.host"),
        ("", "other:443", "no Service other"),
    ],
    ids=["no Service in the names", "no such Service"],
)
def test_what_cannot_be_asked_is_unknown(site: Site, namespace: str, names: str, verify: str, words: str) -> None:
    wish: dict[str, Any] = {"names": names} if names else {}
    ordered(site, namespace, verify=verify, **wish)

    site.await_ready(namespace)
    until(lambda: words in site.message(namespace, kind="Serving"), 20, "why nobody is asked")

    assert site.condition(namespace, kind="Serving") == ("Unknown", "ServingUnknown")
    assert site.condition(namespace)[0] == "True"


def test_the_condition_goes_with_the_wish(site: Site, namespace: str, serve: Serve) -> None:
    ordered(site, namespace)
    site.await_ready(namespace)
    serve("web-a")
    verified(site, namespace)
    seen(site, namespace, "True")

    site.plane.merge_patch(
        "secrets", namespace, "web-tls", {"metadata": {"annotations": {"certrenewal.dev/verify": None}}}
    )

    until(lambda: site.condition(namespace, kind="Serving") == ("", ""), 20, "no condition Serving")
    assert site.condition(namespace, kind="RolledOut")[0] == "True"


def test_another_leader_goes_on_where_the_first_ended(site: Site, namespace: str, serve: Serve) -> None:
    ordered(site, namespace)
    before = site.await_ready(namespace)
    served = serve("web-a")
    verified(site, namespace)
    seen(site, namespace, "True")
    handshakes = served.handshakes
    site.operator.restart()
    site.order(namespace, "later-tls")
    site.await_ready(namespace, "later-tls")
    asked = served.handshakes
    renewed(site, namespace, before)
    seen(site, namespace, "False")

    site.operator.restart()
    served.load(held(site, namespace))
    seen(site, namespace, "True")

    assert asked == handshakes


def test_without_the_right_it_is_unknown_and_the_value_is_named(site: Site, namespace: str, serve: Serve) -> None:
    ordered(site, namespace)
    site.await_ready(namespace)
    served = serve("web-a")
    operators.upgrade(site.plane, SYSTEM, values={"authority": authority(site.ca)})
    try:
        verified(site, namespace)
        message = seen(site, namespace, "Unknown", "ServingUnknown")
        until(lambda: "restarts.verify" in site.message(namespace, kind="Serving"), 20, f"the value, after {message}")
    finally:
        operators.upgrade(site.plane, SYSTEM, values={"authority": authority(site.ca), **VERIFY})

    assert served.handshakes == 0
    assert site.condition(namespace) == ("True", "Issued")
    seen(site, namespace, "True", patience=AGAIN)


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254"])
def test_the_api_server_takes_no_endpoint_that_would_not_be_asked(site: Site, namespace: str, address: str) -> None:
    with pytest.raises(ApiError, match="may not be in the"):
        site.plane.create(endpoint_slice("web-a", namespace, "web", address, {"https": 443}))


def test_the_chain_that_is_served_is_the_one_in_the_secret(site: Site, namespace: str) -> None:
    """The servers of these tests are what they claim: they show what lies in the Secret."""
    ordered(site, namespace)
    chain = site.await_ready(namespace)

    assert parse_chain(held(site, namespace).certificate.encode()).leaf == chain.leaf
