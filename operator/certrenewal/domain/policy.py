"""Who may have which name: deny by default, the first rule that allows decides (contract §4)."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from certrenewal.domain.durations import format_duration
from certrenewal.domain.names import Kind, Name, parse_name

# What is asked for where nobody can say how long a certificate will live: whoever holds a token chooses.
UNBOUNDED = timedelta.max

# A dot segment, written plainly or with %2e, that a reader resolves to something above the prefix (RFC 3986 §6.2.2).
_CLIMBS = re.compile(r"([/\\]|%2f|%5c)(\.|%2e){2}([/\\?#]|%2f|%5c|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSelector:
    """A Kubernetes label selector: every requirement must hold."""

    match_labels: tuple[tuple[str, str], ...] = ()
    match_expressions: tuple[tuple[str, str, tuple[str, ...]], ...] = ()

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(labels.get(key) == value for key, value in self.match_labels) and all(
            _holds(labels, *requirement) for requirement in self.match_expressions
        )


def parse_selector(value: Mapping[str, Any]) -> LabelSelector:
    """Read a metav1.LabelSelector."""
    return LabelSelector(
        match_labels=tuple(sorted((value.get("matchLabels") or {}).items())),
        match_expressions=tuple(
            (item["key"], item["operator"], tuple(item.get("values") or ()))
            for item in value.get("matchExpressions") or ()
        ),
    )


def _holds(labels: Mapping[str, str], key: str, operator: str, values: tuple[str, ...]) -> bool:
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise ValueError(f"there is no operator {operator!r}: write In, NotIn, Exists or DoesNotExist")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One entry of ``policy[].names``: a literal name, or a glob of its kind."""

    kind: Kind
    text: str

    def allows(self, name: Name, *, cluster_domain: str) -> bool:
        """Whether ``name`` matches; a DNS glob never reaches into the cluster's service names."""
        if name.kind is not self.kind:
            return False
        if name.kind is Kind.IP:
            return ipaddress.ip_address(name.value) in ipaddress.ip_network(self.text, strict=False)
        if name.kind is Kind.DNS and "*" in self.text:
            return not _is_service_name(name.value, cluster_domain) and _globs(self, name)
        return name.value == self.text or _matches(self, name)


def _matches(pattern: Pattern, name: Name) -> bool:
    match name.kind:
        case Kind.EMAIL:
            local, _, domain = pattern.text.rpartition("@")
            mine, _, theirs = name.value.rpartition("@")
            return domain == theirs and local in ("*", mine)
        case Kind.URI:
            prefix = pattern.text.removesuffix("*")
            return prefix != pattern.text and name.value.startswith(prefix) and not _CLIMBS.search(name.value)
        case _:
            return False


def _globs(pattern: Pattern, name: Name) -> bool:
    if pattern.text.startswith("**."):
        rest = pattern.text[2:]
        return name.value.endswith(rest) and len(name.value) > len(rest)
    wanted, labels = pattern.text.split("."), name.value.split(".")
    return len(wanted) == len(labels) and all(want in ("*", label) for want, label in zip(wanted, labels, strict=True))


def _is_service_name(value: str, cluster_domain: str) -> bool:
    """Whether the cluster's DNS could answer for it: such names are allowed to others only literally."""
    return value.endswith((".svc", f".{cluster_domain}")) or value.count(".") < 2


def parse_pattern(text: str) -> Pattern:
    """Read one entry of ``policy[].names``; ValueError says what would be right."""
    lowered = text.lower()
    if "://" in text or lowered.startswith("urn:"):
        if "*" in text.removesuffix("*"):
            raise ValueError(f"{text!r}: a URI rule is literal or a prefix that ends in '*'")
        scheme, _, rest = text.partition(":")
        return Pattern(Kind.URI, f"{scheme.lower()}:{rest}")
    if "@" in text:
        local, _, domain = text.rpartition("@")
        name = parse_name(f"{'any' if local == '*' else local}@{domain}")
        return Pattern(Kind.EMAIL, f"{local}@{name.value.rpartition('@')[2]}")
    try:
        return Pattern(Kind.IP, str(ipaddress.ip_network(text, strict=False)))
    except ValueError:
        pass
    rest = lowered.removeprefix("**.")
    parse_name(".".join("any" if label == "*" else label for label in rest.split(".")))
    labels = rest.split(".")
    if set(labels) <= {"*"}:
        raise ValueError(f"{text!r} would allow everything: name a domain, such as *.shop.example.com")
    if lowered != rest and "*" in labels:
        raise ValueError(f"{text!r}: after '**.' comes a domain without '*', such as **.shop.example.com")
    if all(label == "*" or label.isdigit() for label in labels):
        raise ValueError(f"{text!r}: write addresses as a CIDR, such as 10.1.0.0/16")
    return Pattern(Kind.DNS, lowered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: which namespaces it speaks of, which names it allows, and for how long at most."""

    namespaces: tuple[str, ...] = ()
    selector: LabelSelector | None = None
    accounts: tuple[str, ...] = ()  # of callers that proved to be one of these ServiceAccounts; empty: of everybody
    names: tuple[Pattern, ...]
    max_duration: timedelta | None = None

    def speaks_of(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether the rule is for this namespace."""
        if self.selector is not None:
            return self.selector.selects(labels)
        return any(fnmatch.fnmatchcase(namespace, glob) for glob in self.namespaces)

    def is_for(self, asker: Asker) -> bool:
        """Whether the rule is for this namespace, and for the ServiceAccount that asks."""
        if self.accounts and not any(fnmatch.fnmatchcase(asker.account, glob) for glob in self.accounts):
            return False
        return self.speaks_of(asker.namespace, asker.labels)

    def allows(self, name: Name, duration: timedelta | None, *, cluster_domain: str) -> bool:
        """Whether the rule lets a certificate have ``name`` for ``duration`` (None: the CA's default)."""
        if duration is not None and self.max_duration is not None and duration > self.max_duration:
            return False
        return any(pattern.allows(name, cluster_domain=cluster_domain) for pattern in self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """The namespace that asks, with its labels, and the ServiceAccount where one has proved to be it."""

    namespace: str
    labels: Mapping[str, str]
    cluster_domain: str
    account: str = ""

    def owns(self, name: Name) -> bool:
        """Whether ``name`` is a service name of the asking namespace: NAME.NAMESPACE, ….svc, ….svc.DOMAIN."""
        if name.kind is not Kind.DNS:
            return False
        for suffix in (f".{self.namespace}.svc", f".{self.namespace}.svc.{self.cluster_domain}"):
            if name.value.endswith(suffix):
                # One label is a Service, two are a pod behind a headless one.
                return name.value.removesuffix(suffix).count(".") <= 1
        service, dot, namespace = name.value.partition(".")
        return bool(dot) and namespace == self.namespace and service != "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Why a request is denied (None: it is allowed), and the longest life that the rules used allow."""

    denial: str | None = None
    max_duration: timedelta | None = None


def judge(
    names: Iterable[Name], duration: timedelta | None, *, asker: Asker, policy: tuple[Rule, ...], authority: str
) -> Verdict:
    """Judge every name of a certificate; the first that no rule allows is named, with the rule to add."""
    rules = [rule for rule in policy if rule.is_for(asker)]
    limits: list[timedelta] = []
    for name in names:
        if asker.owns(name):
            continue
        allowing = _first(rules, name, duration, asker.cluster_domain)
        if allowing is None:
            return Verdict(denial=_denial(name, duration, rules, asker, authority))
        if allowing.max_duration is not None:
            limits.append(allowing.max_duration)
    return Verdict(max_duration=min(limits, default=None))


def _first(rules: Iterable[Rule], name: Name, duration: timedelta | None, cluster_domain: str) -> Rule | None:
    return next((rule for rule in rules if rule.allows(name, duration, cluster_domain=cluster_domain)), None)


def _denial(name: Name, duration: timedelta | None, rules: list[Rule], asker: Asker, authority: str) -> str:
    shorter = _first(rules, name, None, asker.cluster_domain)
    if shorter is not None and shorter.max_duration is not None and duration == UNBOUNDED:
        return (
            f"{name.value!r} is allowed for {format_duration(shorter.max_duration)} at most, and whoever holds a token "
            "chooses how long the certificate lives: ask for a certificate, or have the provisioner sign no more, by "
            "its claim maxTLSCertDuration, or add a rule without maxDuration to the policy of CertAuthority "
            f"{authority}"
        )
    if shorter is not None and shorter.max_duration is not None and duration is not None:
        return (
            f"{name.value!r} is allowed for {format_duration(shorter.max_duration)} at most and "
            f"{format_duration(duration)} is asked for: ask for less, or raise maxDuration "
            f"in the policy of CertAuthority {authority}"
        )
    whose, narrowed = f"in namespace {asker.namespace}", ""
    if asker.account:
        whose = f"to ServiceAccount {asker.namespace}/{asker.account}"
        narrowed = f'serviceAccounts: ["{asker.account}"], '
    if name.kind is Kind.DNS and name.value.startswith("*.") and _is_service_name(name.value, asker.cluster_domain):
        return (
            f"no rule can allow {name.value!r}: the cluster's DNS may answer for what it stands for, such as Services "
            "of other namespaces. Name each host"
        )
    return (
        f"no rule allows {name.value!r} {whose}: add to spec.policy of CertAuthority "
        f'{authority}: {{namespaces: ["{asker.namespace}"], {narrowed}names: ["{name.value}"]}}'
    )
