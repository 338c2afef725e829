"""Do the servers show the certificate that the Secret holds: whom to ask, under which name, and what the answers mean?

Only endpoints of a Service of the CertRenewal's own namespace are asked: an operator that connects to whatever it is
told would reach for its users what they cannot reach themselves.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from certrenewal.domain.names import InvalidName, Kind, parse_name
from certrenewal.domain.reasons import Reason
from certrenewal.domain.spec import InvalidSpec, Verify
from certrenewal.domain.status import Condition, Status, condition_of

SERVING = "Serving"
MOST_ASKED = 100
MOST_NAMED = 3  # endpoints in one message


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Whether this certificate is served, as this version of a CertRenewal wants it verified."""

    uid: str
    generation: int
    fingerprint: str
    serial: str
    names: tuple[str, ...]
    verify: Verify


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A Service of the own namespace, and the name that its clients send (SNI)."""

    service: str
    server_name: str


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An address and a port behind a Service."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an endpoint showed: a certificate (its fingerprint and serial), or why there was none."""

    endpoint: Endpoint
    fingerprint: str = ""
    serial: str = ""
    failure: str = ""


def question_of(status: Status, verify: Verify, *, uid: str, generation: int) -> Question | None:
    """What is to be asked about the certificate that ``status`` tells of; None where there is none."""
    certificate = status.get("certificate") or {}
    if "fingerprint" not in certificate:
        return None
    return Question(
        uid=uid,
        generation=generation,
        fingerprint=certificate["fingerprint"],
        serial=certificate.get("serial", ""),
        names=tuple(certificate.get("names") or ()),
        verify=verify,
    )


def is_told(status: Status, question: Question) -> bool:
    """Whether the condition in ``status`` speaks of the certificate that is asked about: the two change together."""
    same = (status.get("certificate") or {}).get("fingerprint") == question.fingerprint
    return same and bool(condition_of(status, SERVING))


def is_answered(status: Status, question: Question) -> bool:
    """Whether it is served everywhere, so that nobody has to be asked again before the next certificate."""
    condition = condition_of(status, SERVING)
    return (
        is_told(status, question)
        and condition.get("status") == "True"
        and condition.get("observedGeneration") == question.generation
    )


# -- whom to ask ---------------------------------------------------------------------------------------------------


def service_of(host: str, namespace: str, cluster_domain: str) -> str | None:
    """The Service of this namespace that ``host`` names, as NAME, NAME.NAMESPACE, ….svc or ….svc.DOMAIN."""
    service, dot, rest = host.partition(".")
    forms = ("", namespace, f"{namespace}.svc", f"{namespace}.svc.{cluster_domain}")
    return service if service not in ("", "*") and rest in forms and bool(dot) == bool(rest) else None


def refuse_foreign_host(verify: Verify | None, label: str, *, namespace: str, cluster_domain: str) -> None:
    """InvalidSpec where the host is no Service of the own namespace; ``label``: the field as the user wrote it."""
    if verify is None or verify.host is None or service_of(verify.host, namespace, cluster_domain):
        return
    remedy = f"name a Service of namespace {namespace}, as web, web.{namespace}, web.{namespace}.svc or with the domain"
    raise InvalidSpec(label, verify.host, remedy)


def target_of(question: Question, *, namespace: str, cluster_domain: str) -> Target | None:
    """The Service to ask; None where no host is given and no name of the certificate is a Service's."""
    host = question.verify.host
    if host is None:
        own = (name for name in question.names if "." in name and service_of(name, namespace, cluster_domain))
        host = next(own, None)
    service = service_of(host, namespace, cluster_domain) if host else None
    if host is None or service is None:
        return None
    return Target(service=service, server_name=_server_name(question.names, host, service, namespace, cluster_domain))


def _server_name(names: Sequence[str], host: str, service: str, namespace: str, cluster_domain: str) -> str:
    """The name by which a server that has several certificates picks this one."""
    full = f"{service}.{namespace}.svc"
    forms = (host, full, f"{full}.{cluster_domain}", f"{service}.{namespace}")
    hosts = [name for name in names if _is_dns(name)]
    for form in forms:
        if form in hosts or f"*.{form.partition('.')[2]}" in hosts:
            return form
    # A certificate for names outside of the cluster: those are what its clients send.
    return hosts[0].replace("*", service) if hosts else full


def _is_dns(name: str) -> bool:
    try:
        return "." in name and parse_name(name).kind is Kind.DNS
    except InvalidName:
        return False


def endpoints_of(service: Mapping[str, Any], slices: Iterable[Mapping[str, Any]], port: int) -> tuple[Endpoint, ...]:
    """The ready endpoints behind a port of a Service, or behind a port of its pods where the Service has none such."""
    spec = service.get("spec") or {}
    known = [piece for piece in slices if piece.get("addressType") in ("IPv4", "IPv6")]
    ports: Sequence[Mapping[str, Any]] = spec.get("ports") or ()
    names = {p.get("name") or "" for p in ports if _is_tcp(p) and p.get("port") == port}
    # Of two families one is enough: it is the same server.
    for family in spec.get("ipFamilies") or ("IPv4", "IPv6"):
        pieces = [piece for piece in known if piece["addressType"] == family]
        if found := {endpoint for piece in pieces for endpoint in _ready(piece, names, port)}:
            return tuple(sorted(found))
    return ()


def _ready(piece: Mapping[str, Any], names: set[str], port: int) -> Iterator[Endpoint]:
    listed: Sequence[Mapping[str, Any]] = piece.get("ports") or ({},)  # none at all: any, as behind a headless Service
    ports = [p for p in listed if _is_tcp(p)]
    named = [p for p in ports if (p.get("name") or "") in names]
    fitting = named or [p for p in ports if p.get("port") in (port, None)]
    for endpoint in piece.get("endpoints") or ():
        ready = (endpoint.get("conditions") or {}).get("ready") is not False
        addresses = endpoint.get("addresses") or ()
        if ready and addresses:
            yield from (Endpoint(addresses[0], p.get("port") or port) for p in fitting)


def _is_tcp(port: Mapping[str, Any]) -> bool:
    return bool(port.get("protocol", "TCP") == "TCP")


def objection(endpoint: Endpoint) -> str | None:
    """Why an endpoint is not asked: the API server allows no such address, and an older one may have."""
    try:
        address = ipaddress.ip_address(endpoint.address)
    except ValueError:
        return "not asked, as it is no IP address"
    plain = getattr(address, "ipv4_mapped", None) or address
    for refused, words in (
        (plain.is_link_local, "a link-local"),
        (plain.is_loopback, "a loopback"),
        (plain.is_unspecified, "an unspecified"),
        (plain.is_multicast, "a multicast"),
    ):
        if refused:
            return f"not asked, as it is {words} address"
    return None


# -- what the answers mean -----------------------------------------------------------------------------------------


def judge(question: Question, target: Target, answers: Sequence[Answer], *, total: int) -> Condition:
    """The condition that these answers make; ``total`` endpoints are ready, and not all of them may have been asked."""
    if not answers:
        words = f"Service {target.service} has no ready endpoint for port {question.verify.port}"
        return _condition("False", Reason.NOT_SERVING, words)
    same = [answer for answer in answers if answer.fingerprint == question.fingerprint]
    other = [answer for answer in answers if answer.fingerprint not in ("", question.fingerprint)]
    silent = [answer for answer in answers if not answer.fingerprint]
    words = f"{len(same)} of {len(answers)} endpoints of Service {target.service} serve serial {question.serial}"
    if total > len(answers):
        words += f" ({total - len(answers)} more were not asked)"
    if other:
        words += f"; another certificate is served at {_named(other)}"
    if silent:
        words += f"; no TLS server answers at {_named(silent)}"
    if other:
        return _condition("False", Reason.SERVING_OTHER, words)
    return _condition("False", Reason.NOT_SERVING, words) if silent else _condition("True", Reason.SERVING, words)


def _named(answers: Sequence[Answer]) -> str:
    shown = [f"{a.endpoint} ({a.failure or f'serial {a.serial}'})" for a in answers[:MOST_NAMED]]
    more = f" and {len(answers) - MOST_NAMED} more" if len(answers) > MOST_NAMED else ""
    return ", ".join(shown) + more


def not_yet() -> Condition:
    """Before the rollout of a new certificate is complete, and before the first answer."""
    return _condition("Unknown", Reason.SERVING_UNKNOWN, "asked once the rollout is complete")


def no_host(namespace: str) -> Condition:
    """The spec names no Service, and the certificate neither."""
    words = f"no name of the certificate is that of a Service of namespace {namespace}: name one in spec.verify.host"
    return _condition("Unknown", Reason.SERVING_UNKNOWN, words)


def no_service(target: Target, namespace: str) -> Condition:
    """The Service does not exist, or has no endpoints by its kind."""
    words = f"namespace {namespace} has no Service {target.service} with endpoints: name one in spec.verify.host"
    return _condition("Unknown", Reason.SERVING_UNKNOWN, words)


def no_rights() -> Condition:
    """The account may not read what it takes."""
    words = "the operator may not read Services and EndpointSlices: set the chart value restarts.verify to true"
    return _condition("Unknown", Reason.SERVING_UNKNOWN, words)


def _condition(status: str, reason: Reason, message: str) -> Condition:
    return Condition(type=SERVING, status=status, reason=reason, message=message)
