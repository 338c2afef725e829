"""A token is good for its names, once and not for long; it is cancelled at the CA, and nowhere but where it belongs."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from certrenewal.domain.certificate import parse_chain
from certrenewal.domain.rollout import mark
from certrenewal.domain.status import moment_of
from tests.cluster.site import OPEN_POLICY, PASSWORD_SECRET, SYSTEM, Site, authority, installed
from tests.cluster.test_issue import claims_of
from tests.conftest import MakeCA
from tests.testbed import manifests, tools
from tests.testbed.api import Manifest
from tests.testbed.controlplane import ControlPlane
from tests.testbed.operators import Operator
from tests.testbed.processes import until

DOCS = Path(__file__).parents[2] / "docs" / "tokens.md"
NAME = "web-token"
AUDIENCE = "certrenewal.dev"
SERVICE = f"certrenewal.{SYSTEM}.svc"
NARROW = {"namespaces": ["*"], "serviceAccounts": ["web", "web-*"], "names": ["*.narrow.example.com"]}
SHORT_LIVED = {"namespaces": ["*"], "names": ["*.short.example.com"], "maxDuration": "1h"}


@pytest.fixture(scope="module")
def site(plane: ControlPlane, make_ca: MakeCA) -> Iterator[Site]:
    """An operator that hands out tokens; what the CA signs ends after 20 s where nothing else is asked for."""
    ca = make_ca(backdate="0s", claims={"defaultTLSCertDuration": "20s"})
    policy = [*OPEN_POLICY, NARROW, SHORT_LIVED]
    values = {"authority": authority(ca, policy=policy), "tokens": {"enabled": True}}
    with installed(plane, ca, values=values) as running:
        yield running


# -- tokens in Secrets ---------------------------------------------------------------------------------------------


def order(site: Site, namespace: str, name: str = NAME, **annotations: str) -> Manifest:
    """Create a Secret that asks for a token for ``web.NAMESPACE.svc``, or for what ``annotations`` say."""
    wish = {"token": "true", "names": f"web.{namespace}.svc", **annotations}
    return site.plane.create(manifests.secret(name, namespace, {"mine": "1"}, annotations=manifests.prefixed(**wish)))


def await_token(site: Site, namespace: str, name: str = NAME, *, after: str = "") -> str:
    """Wait until a token lies in the Secret that is not ``after``, and the CertRenewal says so; the token."""

    def there() -> bool:
        token = held(site, namespace, name)
        laid = site.status(namespace, name).get("token") or {}
        return token not in ("", after) and laid.get("sha256") == hashlib.sha256(token.encode()).hexdigest()

    until(there, 20, f"a token in {namespace}/{name}")
    site.await_condition(namespace, name, status="True", reason="TokenIssued")
    return held(site, namespace, name)


def held(site: Site, namespace: str, name: str = NAME) -> str:
    """The token in the Secret, empty where there is none."""
    found = site.plane.find("secrets", namespace, name) or {}
    return manifests.decoded(found, "token").decode() if "token" in found.get("data", {}) else ""


def is_refused(site: Site, name: str, token: str) -> bool:
    """Whether the CA signs nothing for the token any more."""
    try:
        site.ca.certificate_by_token(name, token)
    except RuntimeError as refusal:
        assert "authorization" in str(refusal)
        return True
    return False


def test_a_token_is_all_that_step_needs_for_a_certificate(site: Site, namespace: str) -> None:
    name = f"web.{namespace}.svc"
    order(site, namespace, names=f"{name},www.example.com,10.1.2.3")

    token = await_token(site, namespace)
    claims, data = claims_of(token), site.secret(namespace, NAME)
    crt, _ = site.ca.certificate_by_token(name, token)

    assert {str(found) for found in parse_chain(crt.encode()).leaf.names} == {name, "www.example.com", "10.1.2.3"}
    assert set(data["data"]) == {"mine", "token", "ca-url", "fingerprint", "expires-at"}
    assert manifests.decoded(data, "ca-url").decode() == site.ca.url
    assert manifests.decoded(data, "fingerprint").decode() == site.ca.fingerprint
    expires = moment_of(manifests.decoded(data, "expires-at").decode())
    assert expires is not None
    assert claims["exp"] == expires.timestamp()
    assert claims["exp"] - claims["iat"] == 300
    assert claims["sub"] == name
    assert "cnf" not in claims
    assert len(bytes.fromhex(claims["jti"])) * 8 == 256
    assert is_refused(site, name, token)


def test_a_token_is_for_its_names_alone(site: Site, namespace: str) -> None:
    order(site, namespace)

    token = await_token(site, namespace)

    with pytest.raises(RuntimeError):
        site.ca.certificate_by_token("other.example.com", token)


def test_a_token_is_nowhere_but_in_its_secret(site: Site, namespace: str) -> None:
    order(site, namespace)
    token = await_token(site, namespace)
    claims = claims_of(token)
    until(lambda: site.events(namespace, NAME, "TokenIssued"), 10, "an Event")

    written = json.dumps([site.status(namespace, NAME), site.events(namespace, NAME)]) + site.operator.log_text()

    for secret in (token, token.split(".")[2], claims["jti"]):
        assert secret not in written
    assert site.operator.metric("certrenewal_certificate_ready", namespace=namespace) == 0
    assert 'certrenewal_certificate_ready{name="web-token"' not in "".join(site.operator.metrics())


def test_an_expired_token_is_removed_and_told(site: Site, namespace: str) -> None:
    unused = site.operator.metric("certrenewal_tokens_total", outcome="expired")
    order(site, namespace, token_lifetime="2s")
    site.await_condition(namespace, NAME, status="False", reason="TokenExpired")
    data = site.secret(namespace, NAME)["data"]

    assert set(data) == {"mine", "ca-url", "fingerprint"}
    assert "token-now" in site.message(namespace, NAME)
    assert site.operator.metric("certrenewal_tokens_total", outcome="expired") >= unused + 1


def test_an_expired_token_ends_at_once_although_the_ca_grants_a_minute(site: Site, namespace: str) -> None:
    order(site, namespace, token_lifetime="3s")
    token = await_token(site, namespace)
    site.await_condition(namespace, NAME, status="False", reason="TokenExpired")

    assert is_refused(site, f"web.{namespace}.svc", token)


def test_a_token_that_was_used_is_counted_when_it_ends(site: Site, namespace: str) -> None:
    used = site.operator.metric("certrenewal_tokens_total", outcome="used")
    order(site, namespace, token_lifetime="6s")
    site.ca.certificate_by_token(f"web.{namespace}.svc", await_token(site, namespace))

    site.await_condition(namespace, NAME, status="False", reason="TokenExpired")
    until(lambda: site.events(namespace, NAME, "TokenExpired"), 10, "an Event")

    assert "the CA had taken it" in site.events(namespace, NAME, "TokenExpired")[0]["note"]
    assert site.operator.metric("certrenewal_tokens_total", outcome="used") >= used + 1


@pytest.mark.parametrize("lifetime", ["5m", "2s"], ids=["while one lies there", "after it ended"])
def test_token_now_asks_for_another(site: Site, namespace: str, lifetime: str) -> None:
    order(site, namespace, token_lifetime=lifetime)
    first = await_token(site, namespace)
    if lifetime == "2s":
        site.await_condition(namespace, NAME, status="False", reason="TokenExpired")
        site.plane.annotate("secrets", namespace, NAME, token_lifetime="5m")

    site.plane.annotate("secrets", namespace, NAME, token_now="1")
    second = await_token(site, namespace, after=first)

    assert is_refused(site, f"web.{namespace}.svc", first)
    site.ca.certificate_by_token(f"web.{namespace}.svc", second)
    assert site.status(namespace, NAME)["tokenNow"] == "1"


def test_token_now_works_on_a_certrenewal_by_hand(site: Site, namespace: str) -> None:
    spec = {"names": [f"web.{namespace}.svc"], "token": {"lifetime": "10m"}}
    site.plane.create(manifests.cert_renewal(NAME, namespace, spec))
    first = await_token(site, namespace)

    site.plane.annotate("certrenewals", namespace, NAME, token_now="1")
    second = await_token(site, namespace, after=first)

    assert site.secret(namespace, NAME)["type"] == "Opaque"
    assert claims_of(second)["exp"] - claims_of(second)["iat"] == 600


def test_a_name_without_a_rule_is_denied_at_no_cost(site: Site, namespace: str) -> None:
    before = len(site.ca.calls())
    refused = site.operator.metric("certrenewal_tokens_total", outcome="refused")
    order(site, namespace, names=f"web.{namespace}.svc,www.example.org")

    message = site.await_condition(namespace, NAME, status="False", reason="NameDenied")

    assert f'{{namespaces: ["{namespace}"], names: ["www.example.org"]}}' in message
    assert not [call for call in site.ca.calls()[before:] if call["path"] == "/1.0/sign" and namespace in str(call)]
    assert set(site.secret(namespace, NAME)["data"]) == {"mine"}
    assert site.operator.metric("certrenewal_tokens_total", outcome="refused") >= refused + 1


@pytest.mark.parametrize(
    ("name", "words"),
    [("www.short.example.com", "chooses how long"), ("www.narrow.example.com", "no rule allows")],
    ids=["a rule with maxDuration", "a rule for ServiceAccounts"],
)
def test_a_rule_that_a_token_cannot_keep_gives_none(site: Site, namespace: str, name: str, words: str) -> None:
    order(site, namespace, names=name)

    assert words in site.await_condition(namespace, NAME, status="False", reason="NameDenied")


def test_a_rule_with_a_longest_life_gives_a_token_where_the_provisioner_keeps_it(site: Site, namespace: str) -> None:
    site.ca.add_provisioner("brief", "--x509-max-dur=1h", "--x509-default-dur=1h", password="brief")
    site.plane.apply(manifests.secret("brief", SYSTEM, {"password": "brief"}))
    brief = manifests.cert_authority("brief", site.ca, password=(SYSTEM, "brief"), policy=[SHORT_LIVED])
    brief["spec"]["provisioner"]["name"] = "brief"
    site.plane.create(brief)
    name = "www.short.example.com"
    order(site, namespace, names=name, authority="brief")

    token = await_token(site, namespace)
    with pytest.raises(RuntimeError):
        site.ca.certificate_by_token(name, token, "--not-after=2h")
    site.plane.annotate("secrets", namespace, NAME, token_now="1")
    site.ca.certificate_by_token(name, await_token(site, namespace, after=token))
    site.plane.delete("certauthorities", "", "brief")


def test_a_rule_that_is_taken_away_takes_its_tokens(site: Site, namespace: str) -> None:
    before = site.plane.get("certauthorities", "", "default")["spec"]["policy"]
    more = [*before, {"namespaces": [namespace], "names": ["*.example.org"]}]
    site.plane.merge_patch("certauthorities", "", "default", {"spec": {"policy": more}})
    order(site, namespace, names="www.example.org")
    token = await_token(site, namespace)

    site.plane.merge_patch("certauthorities", "", "default", {"spec": {"policy": before}})
    site.await_condition(namespace, NAME, status="False", reason="NameDenied")

    assert held(site, namespace) == ""
    assert is_refused(site, "www.example.org", token)


@pytest.mark.parametrize("value", ["false", None])
def test_a_cancelled_token_is_gone_and_the_ca_refuses_it(site: Site, namespace: str, value: str | None) -> None:
    order(site, namespace)
    token = await_token(site, namespace)

    site.plane.annotate("secrets", namespace, NAME, token=value)
    until(lambda: site.plane.find("certrenewals", namespace, NAME) is None, 20, "the CertRenewal is gone")

    assert set(site.secret(namespace, NAME)["data"]) == {"mine"}
    assert is_refused(site, f"web.{namespace}.svc", token)
    assert site.events(namespace, NAME, "TokenCancelled")
    # First ours, which issued nothing, then that of step.
    assert [call["status"] for call in site.ca.calls() if call.get("ott") == token] == [403, 401]


@pytest.mark.parametrize("plural", ["secrets", "certrenewals"])
def test_a_deletion_cancels_too(site: Site, namespace: str, plural: str) -> None:
    if plural == "secrets":
        order(site, namespace)
    else:
        spec = {"names": [f"web.{namespace}.svc"], "token": {}}
        site.plane.create(manifests.cert_renewal(NAME, namespace, spec))
    token = await_token(site, namespace)

    site.plane.delete(plural, namespace, NAME)
    until(lambda: site.events(namespace, NAME, "TokenCancelled"), 20, "cancelled")

    assert is_refused(site, f"web.{namespace}.svc", token)
    if plural == "certrenewals":
        until(lambda: not site.secret(namespace, NAME).get("data"), 10, "the Secret is empty again")


def test_a_token_that_the_ca_does_not_hear_of_is_told_of(site: Site, namespace: str) -> None:
    order(site, namespace)
    await_token(site, namespace)
    site.ca.stop()
    try:
        site.plane.annotate("secrets", namespace, NAME, token="false")
        until(lambda: site.events(namespace, NAME, "TokenNotCancelled"), 30, "a Warning")
        until(lambda: site.plane.find("certrenewals", namespace, NAME) is None, 20, "the CertRenewal is gone")
    finally:
        site.ca.start()

    assert site.events(namespace, NAME, "TokenNotCancelled")[0]["type"] == "Warning"
    assert held(site, namespace) == ""
    until(lambda: site.operator.metric("certrenewal_authority_ready", authority="default") == 1, 40, "the CA is back")


def test_a_ca_that_was_seen_down_is_given_a_token_that_it_takes(site: Site, namespace: str) -> None:
    order(site, namespace)
    first = await_token(site, namespace)
    site.ca.stop()
    site.order(namespace)  # it takes a call to notice
    site.await_condition(namespace, status="False", reason="AuthorityUnreachable")
    site.ca.start()

    second = await_token(site, namespace, after=first)

    site.ca.certificate_by_token(f"web.{namespace}.svc", second)


@pytest.mark.parametrize(
    "edit",
    [
        {"token": None},
        {"token": manifests.encoded("garbage")},
        {"ca-url": manifests.encoded("https://elsewhere"), "expires-at": None, "fingerprint": None},
    ],
    ids=["taken out", "overwritten", "what lies beside it"],
)
def test_an_edit_is_healed(site: Site, namespace: str, edit: dict[str, str | None]) -> None:
    order(site, namespace)
    before = await_token(site, namespace)

    site.plane.merge_patch("secrets", namespace, NAME, {"data": edit})
    after = await_token(site, namespace, after=before if "token" in edit else "")
    until(lambda: "expires-at" in site.secret(namespace, NAME)["data"], 20, "healed")

    assert (after == before) is ("token" not in edit)
    assert manifests.decoded(site.secret(namespace, NAME), "ca-url").decode() == site.ca.url
    site.ca.certificate_by_token(f"web.{namespace}.svc", after)


def test_other_names_take_another_token(site: Site, namespace: str) -> None:
    order(site, namespace)
    first = await_token(site, namespace)

    site.plane.annotate("secrets", namespace, NAME, names="www.example.com")
    second = await_token(site, namespace, after=first)

    assert claims_of(second)["sans"] == ["www.example.com"]
    assert is_refused(site, f"web.{namespace}.svc", first)


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"renew": "true"}, "keep one of the two"),
        ({"token": "yes"}, '"true" or "false"'),
        ({"token_lifetime": "2h"}, "1s to 1h"),
        ({"formats": "der"}, "leave it out beside a token"),
        ({"renew_now": "1"}, "token-now"),
    ],
    ids=["renew and token", "neither true nor false", "too long", "a format", "renew-now"],
)
def test_what_does_not_go_together_is_told(site: Site, namespace: str, annotations: dict[str, str], words: str) -> None:
    order(site, namespace, **annotations)

    message = site.await_condition(namespace, NAME, status="False", reason="InvalidSpec")

    assert words in message
    assert set(site.secret(namespace, NAME)["data"]) == {"mine"}


def test_a_token_ends_in_its_secret_although_the_annotations_cannot_be_read(site: Site, namespace: str) -> None:
    order(site, namespace, token_lifetime="4s")
    await_token(site, namespace)

    site.plane.annotate("secrets", namespace, NAME, renew="true")
    site.await_condition(namespace, NAME, status="False", reason="InvalidSpec")

    until(lambda: held(site, namespace) == "", 20, "the token is gone")


def test_a_secret_may_turn_from_a_token_to_a_certificate_and_back(site: Site, namespace: str) -> None:
    order(site, namespace)
    token = await_token(site, namespace)

    site.plane.annotate("secrets", namespace, NAME, token=None, renew="true", duration="1h")
    site.await_condition(namespace, NAME, status="True", reason="Issued")
    chain = site.chain(namespace, NAME)
    until(lambda: held(site, namespace) == "", 10, "no token")
    assert [str(name) for name in chain.leaf.names] == [f"web.{namespace}.svc"]
    assert "token" not in site.status(namespace, NAME)
    assert is_refused(site, f"web.{namespace}.svc", token)

    site.plane.annotate("secrets", namespace, NAME, token="true", renew=None, duration=None)
    await_token(site, namespace)
    assert "certificate" not in site.status(namespace, NAME)
    assert [c["type"] for c in site.status(namespace, NAME)["conditions"]] == ["Ready"]


def test_nobody_is_restarted_for_a_token(site: Site, namespace: str) -> None:
    site.plane.create(manifests.deployment("web", namespace, manifests.volume(NAME), manifests.volume("web-tls")))
    site.order(namespace, duration="1h")
    order(site, namespace)
    await_token(site, namespace)
    site.await_rolled_out(namespace)
    site.plane.annotate("secrets", namespace, NAME, renew_now="1")  # never honoured: restarts do not wait for it
    site.await_condition(namespace, NAME, status="False", reason="InvalidSpec")
    before = site.chain(namespace)
    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    chain = site.await_new(namespace, after=before)
    site.await_rolled_out(namespace)

    template = site.plane.get("deployments.apps", namespace, "web")["spec"]["template"]["metadata"]["annotations"]

    assert template == {"certificate.certrenewal.dev/web-tls": mark(chain.leaf.fingerprint)}


def test_a_renew_only_authority_gives_no_token(site: Site, namespace: str) -> None:
    site.plane.create(manifests.cert_authority("renew-only", site.ca, password=None))
    order(site, namespace, authority="renew-only")

    message = site.await_condition(namespace, NAME, status="False", reason="AuthorityNotReady")

    assert "spec.provisioner" in message
    site.plane.delete("certauthorities", "", "renew-only")


def test_a_killed_operator_leaves_one_good_token(site: Site, namespace: str) -> None:
    order(site, namespace)
    token = await_token(site, namespace)
    site.operator.kill()
    site.plane.annotate("secrets", namespace, NAME, token="false")
    site.operator.start()

    until(lambda: site.plane.find("certrenewals", namespace, NAME) is None, 40, "the CertRenewal is gone")

    assert is_refused(site, f"web.{namespace}.svc", token)


# -- tokens for pods -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What the endpoint said."""

    status: int
    body: Mapping[str, str]
    headers: Mapping[str, str]


class Connection(http.client.HTTPSConnection):
    """To an operator's endpoint, by the name of its Service, trusting the CA's root alone."""

    def __init__(self, site: Site, operator: Operator | None = None) -> None:
        super().__init__(SERVICE)
        self._port = (operator or site.operator).token_port
        self._trust = ssl.create_default_context(cadata=site.ca.root_pem)

    def connect(self) -> None:
        raw = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        self.sock = self._trust.wrap_socket(raw, server_hostname=SERVICE)

    def opened(self) -> bool:
        """Connect; OSError where nobody listens."""
        self.connect()
        return True

    def leaf(self) -> x509.Certificate:
        """The certificate that the endpoint shows."""
        der = self.sock.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der)


@contextmanager
def connected(site: Site, operator: Operator | None = None) -> Iterator[Connection]:
    """A connection, once the endpoint listens."""
    connection = Connection(site, operator)
    until(connection.opened, 20, "the token endpoint listens", ignoring=(OSError,))
    try:
        yield connection
    finally:
        connection.close()


def ask(
    site: Site,
    proof: str,
    body: Mapping[str, Any] | bytes,
    *,
    method: str = "POST",
    path: str = "/v1/token",
    on: Connection | None = None,
) -> Answer:
    """One request, on a connection of its own where none is given."""
    if on is None:
        with connected(site) as connection:
            return ask(site, proof, body, method=method, path=path, on=connection)
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    on.request(method, path, sent, {"Authorization": f"Bearer {proof}"} if proof else {})
    answer = on.getresponse()
    text = answer.read().decode()
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Traceback" not in text
    return Answer(answer.status, json.loads(text), dict(answer.headers))


def projected(site: Site, namespace: str, account: str = "web", audience: str = AUDIENCE) -> str:
    """A token as the kubelet projects it into a pod of that ServiceAccount."""
    about = {"name": account, "namespace": namespace}
    site.plane.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about})
    return site.plane.account_token(namespace, account, audience=audience)


def test_a_pod_gets_a_token_that_step_takes(site: Site, namespace: str) -> None:
    name, proof = f"web.{namespace}.svc", projected(site, namespace)
    minted = site.operator.metric("certrenewal_tokens_total", outcome="minted")

    answer = ask(site, proof, {"names": [name, "www.example.com"], "lifetime": "90s"})
    token = answer.body["token"]
    claims = claims_of(token)
    crt, _ = site.ca.certificate_by_token(name, token)

    assert answer.status == 200
    assert set(answer.body) == {"token", "caUrl", "fingerprint", "expiresAt"}
    assert (answer.body["caUrl"], answer.body["fingerprint"]) == (site.ca.url, site.ca.fingerprint)
    assert claims["exp"] - claims["iat"] == 90
    assert {str(found) for found in parse_chain(crt.encode()).leaf.names} == {name, "www.example.com"}
    assert site.operator.metric("certrenewal_tokens_total", outcome="minted") >= minted + 1
    assert token not in site.operator.log_text()
    assert proof not in site.operator.log_text()
    assert claims["jti"] not in site.operator.log_text()


def test_the_docs_pod_is_one_and_its_script_leaves_a_certificate(site: Site, namespace: str, tmp_path: Path) -> None:
    """Admitted by the API server, and run here: with the endpoint under the name of its Service."""
    (found,) = re.findall(r"^```yaml\n(apiVersion: v1\nkind: Pod\n.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    manifest = found.replace("namespace: shop", f"namespace: {namespace}").replace(
        "web.shop.svc", f"web.{namespace}.svc"
    )
    (script,) = yaml.safe_load(manifest)["spec"]["initContainers"][0]["args"]
    proof = projected(site, namespace)
    files = {"certrenewal/token": proof, "roots/ca.crt": site.ca.root_pem, "tls/made": ""}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    with connected(site):
        pass
    curl = tmp_path / "curl"
    curl.write_text(
        f'#!/bin/sh\nexec {shutil.which("curl")} --connect-to ::127.0.0.1:{site.operator.token_port} "$@"\n'
    )
    curl.chmod(0o755)
    (tmp_path / "step").symlink_to(tools.path("step"))

    admitted = site.plane.kubectl("apply", "--dry-run=server", "-f", "-", stdin=manifest)
    outcome = subprocess.run(
        ["sh", "-ec", script.replace("/run/", f"{tmp_path}/")],
        check=False, capture_output=True, text=True, timeout=60,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "STEPPATH": str(tmp_path / "steppath"), "HOME": str(tmp_path)},
    )  # fmt: skip

    assert "pod/web" in admitted
    assert outcome.returncode == 0, outcome.stderr
    leaf = parse_chain((tmp_path / "tls" / "tls.crt").read_bytes()).leaf
    assert [str(name) for name in leaf.names] == [f"web.{namespace}.svc"]


@pytest.mark.parametrize("proof", ["nothing", "garbage", "wrong audience", "no account", "header"])
def test_who_does_not_prove_a_service_account_gets_401(site: Site, namespace: str, proof: str) -> None:
    proofs = {
        "nothing": "",
        "garbage": "not.a.token",
        "wrong audience": projected(site, namespace, audience="https://kubernetes.default.svc"),
        "no account": site.plane.admin_token,
        "header": "\x80\xff",
    }

    answer = ask(site, proofs[proof], {"names": [f"web.{namespace}.svc"]})

    assert (answer.status, answer.body["reason"]) == (401, "Unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    if proof == "wrong audience":
        assert AUDIENCE in answer.body["message"]


def test_a_name_without_a_rule_gets_403_and_the_rule_to_add(site: Site, namespace: str) -> None:
    refused = site.operator.metric("certrenewal_tokens_total", outcome="refused")

    answer = ask(site, projected(site, namespace), {"names": ["www.example.org"]})

    assert (answer.status, answer.body["reason"]) == (403, "NameDenied")
    rule = f'{{namespaces: ["{namespace}"], serviceAccounts: ["web"], names: ["www.example.org"]}}'
    assert rule in answer.body["message"]
    assert site.operator.metric("certrenewal_tokens_total", outcome="refused") >= refused + 1


@pytest.mark.parametrize(("account", "status"), [("web", 200), ("web-1", 200), ("other", 403)])
def test_service_accounts_narrow_a_rule(site: Site, namespace: str, account: str, status: int) -> None:
    answer = ask(site, projected(site, namespace, account), {"names": ["www.narrow.example.com"]})

    assert answer.status == status


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "no JSON"),
        (b"[" * 10000, "no JSON"),
        (b"\xff", "no JSON"),
        ([], "body"),
        ({}, "names"),
        ({"names": []}, "names"),
        ({"names": ["a..b"]}, "empty"),
        ({"names": [1]}, "names"),
        ({"names": ["web.shop.svc"], "lifetime": "2h"}, "1s to 1h"),
        ({"names": ["web.shop.svc"], "lifetime": 300}, "lifetime"),
        ({"names": ["web.shop.svc"], "authority": "A"}, "authority"),
        ({"names": ["web.shop.svc"], "authority": "nobody"}, "no CertAuthority 'nobody'"),
        ({"names": ["web.shop.svc"], "duration": "1h"}, "duration"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_gets_400_and_is_named(site: Site, namespace: str, body: Any, words: str) -> None:
    answer = ask(site, projected(site, namespace), body)

    assert answer.status == 400
    if words != "empty":
        assert words in answer.body["message"]


def test_other_paths_methods_and_sizes_are_refused(site: Site, namespace: str) -> None:
    proof = projected(site, namespace)

    found = [
        ask(site, proof, {}, path="/v1/other"),
        ask(site, proof, b"", method="GET"),
        ask(site, proof, {"names": ["x" * 20000]}),
    ]

    assert [(answer.status, answer.body["reason"]) for answer in found] == [
        (404, "NotFound"),
        (405, "MethodNotAllowed"),
        (413, "RequestEntityTooLarge"),
    ]


def test_who_asks_too_often_gets_429_and_nobody_else_does(site: Site, namespace: str) -> None:
    proof, other = projected(site, namespace), projected(site, namespace, "other")
    wish = {"names": [f"web.{namespace}.svc"]}
    with connected(site) as connection:
        answers = [ask(site, proof, wish, on=connection) for _ in range(12)]

    assert [answer.status for answer in answers[:10]] == [200] * 10
    refused = answers[-1]
    assert (refused.status, refused.body["reason"]) == (429, "TooManyRequests")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert ask(site, other, wish).status == 200


def test_an_authority_that_is_not_ready_gets_503(site: Site, namespace: str) -> None:
    site.plane.create(manifests.cert_authority("no-signer", site.ca, password=None))
    proof, wish = projected(site, namespace), {"names": [f"web.{namespace}.svc"], "authority": "no-signer"}

    def known() -> bool:
        return site.operator.metric("certrenewal_authority_ready", authority="no-signer") == 1

    until(known, 20, "the authority was asked")
    answer = ask(site, proof, wish)

    assert (answer.status, answer.body["reason"]) == (503, "AuthorityNotReady")
    site.plane.delete("certauthorities", "", "no-signer")


def test_what_is_no_http_is_answered_and_not_repeated_in_the_log(site: Site) -> None:
    with connected(site) as connection:
        connection.sock.sendall(b"POST /v1/token HTTP/1.1\r\nAuthorization: Bearer hush\x00-hush\r\n\r\n")
        answer = connection.sock.recv(4096)

    assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert b'"BadRequest"' in answer
    assert "hush" not in site.operator.log_text()


def test_a_silent_client_is_not_waited_for(site: Site) -> None:
    with connected(site):
        pass
    with socket.create_connection(("127.0.0.1", site.operator.token_port), timeout=30) as silent:
        assert silent.recv(1) == b""


def test_the_endpoint_shows_a_certificate_of_its_ca_and_renews_it_under_open_connections(
    site: Site, namespace: str
) -> None:
    proof, wish = projected(site, namespace), {"names": [f"web.{namespace}.svc"]}
    with connected(site) as first:
        leaf = first.leaf()
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        until(lambda: served(site).serial_number != leaf.serial_number, 30, "another certificate")

        assert set(names.get_values_for_type(x509.DNSName)) == {
            SERVICE, f"{SERVICE}.cluster.local", SERVICE.removesuffix(".svc"),
        }  # fmt: skip
        assert ask(site, proof, wish, on=first).status == 200
    assert site.operator.metric("certrenewal_token_endpoint_expiry_timestamp_seconds") > 0
    assert not [s for s in site.plane.objects("secrets", SYSTEM) if "tls.key" in (s.get("data") or {})]


def served(site: Site) -> x509.Certificate:
    """The certificate of a new connection."""
    with connected(site) as connection:
        return connection.leaf()


def test_a_standby_hands_out_tokens_too(site: Site, namespace: str) -> None:
    with Operator(site.plane, SYSTEM) as standby, connected(site, standby) as connection:
        answer = ask(site, projected(site, namespace), {"names": [f"web.{namespace}.svc"]}, on=connection)
        assert standby.metric("certrenewal_leader") == 0
        assert answer.status == 200


def test_the_port_is_closed_before_there_is_a_certificate(plane: ControlPlane, site: Site) -> None:
    with Operator(plane, SYSTEM, arguments=("--token-authority=later",)) as other:
        assert other.metric("certrenewal_token_endpoint_expiry_timestamp_seconds") == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", other.token_port), timeout=5)
        reference = (SYSTEM, PASSWORD_SECRET)
        plane.create(manifests.cert_authority("later", site.ca, password=reference))
        with connected(site, other):
            pass
        plane.delete("certauthorities", "", "later")
