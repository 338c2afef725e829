"""Guards: a hook is read at the door or refused by field, and its request says what the certificate says, no more."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.domain.hooks import DEEPEST_BODY, LARGEST_BODY, After, Header, Hook, KeyRef, Method, parse_hooks
from certrenewal.domain.request import Facts, header_value, render
from certrenewal.domain.spec import InvalidSpec, parse_spec, read_wish
from tests.unit.builders import a_root

URL = "https://grafana.example.com/api/datasources/1"
TOKEN = KeyRef("grafana", "token")
FACTS = Facts(
    mark="ab" * 8,
    crt="-----CRT-----\n",
    key="-----KEY-----\n",
    ca="-----CA-----\n",
    serial="4711",
    not_after="2026-03-02T12:00:00Z",
    name="web/tls&x",
    namespace="shop",
)


def a_hook(**fields: Any) -> Hook:
    """The hook that these fields of spec.hooks ask for."""
    (hook,) = parse_spec("web-tls", {"hooks": [{"name": "ping", "url": URL, **fields}]}).hooks
    return hook


def nested(levels: int) -> dict[str, Any]:
    """An object in an object, so many times."""
    inner: dict[str, Any] = {}
    for _ in range(levels - 1):
        inner = {"a": inner}
    return inner


def from_secret(name: str = "grafana", key: str = "token") -> dict[str, Any]:
    """A header whose value lies in a Secret."""
    reference = {"name": name, "key": key}
    return {"headers": [{"name": "A", "valueFrom": {"secretKeyRef": reference}}]}


def of_another_version(pem: bytes) -> str:
    """A certificate of a version that there is not."""
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    return ssl.DER_cert_to_PEM_cert(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"))


def refusal(*hooks: Mapping[str, Any]) -> str:
    """Why these hooks cannot be read."""
    with pytest.raises(InvalidSpec) as refused:
        parse_spec("web-tls", {"hooks": list(hooks)})
    return str(refused.value)


def test_the_least_hook_gets_all_the_defaults() -> None:
    assert a_hook() == Hook(
        name="ping",
        url=URL,
        after=After.RENEWAL,
        method=Method.GET,
        headers=(),
        body=None,
        ca_bundle=None,
        authority=None,
        client_certificate=False,
        timeout=timedelta(seconds=10),
    )


def test_every_field_is_read() -> None:
    bundle = a_root().pem.decode()
    headers = [
        {"name": "X-Org", "value": "1"},
        {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "grafana", "key": "token"}}},
    ]
    hook = a_hook(
        after="Rollout", body="{}", headers=headers, caBundle=bundle, clientCertificate=True, timeout="1m", method="PUT"
    )

    assert hook == Hook(
        name="ping",
        url=URL,
        after=After.ROLLOUT,
        method=Method.PUT,
        headers=(Header(name="X-Org", value="1"), Header(name="Authorization", secret=TOKEN)),
        body="{}",
        ca_bundle=bundle,
        client_certificate=True,
        timeout=timedelta(minutes=1),
    )
    assert hook.secrets == {TOKEN}


@pytest.mark.parametrize("body", [{"a": ["$(serial)", 1, None, 0.5, True]}, ["$(serial)"], 1, False, {}])
def test_a_body_may_be_yaml_or_text(body: object) -> None:
    assert a_hook(body=body) == a_hook(body=json.dumps(body))
    assert json.loads(a_hook(body=body).body or "null") == body


def test_a_body_is_posted_unless_told_otherwise() -> None:
    assert a_hook(body="1").method is Method.POST


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://a.example.com", "a.example.com", 443),
        ("https://A.Example.Com:8443/x?y=1", "a.example.com", 8443),
        ("https://10.1.2.3/", "10.1.2.3", 443),
        ("https://[fd00::1]:8443/", "fd00::1", 8443),
        ("https://my_service.shop.svc?q", "my_service.shop.svc", 443),
    ],
)
def test_host_and_port_are_those_of_the_url(url: str, host: str, port: int) -> None:
    hook = a_hook(url=url)

    assert (hook.host, hook.port) == (host, port)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "Ping"}, "spec.hooks[0].name"),
        ({"name": ""}, "spec.hooks[0].name"),
        ({"name": "a" * 64}, "spec.hooks[0].name"),
        ({"url": "http://a.example.com/"}, "spec.hooks[0].url"),
        ({"url": "https://"}, "spec.hooks[0].url"),
        ({"url": "https://user:pw@a.example.com/"}, "spec.hooks[0].url"),
        ({"url": "https://a.example.com\\@b.example.com/"}, "spec.hooks[0].url"),
        ({"url": "https://a.example.com#@b.example.com/"}, "spec.hooks[0].url"),
        ({"url": "https://a.example.com/ b"}, "spec.hooks[0].url"),
        ({"url": "https://a.example.com/\r\nX: y"}, "spec.hooks[0].url"),
        ({"url": "https://a..example.com/"}, "spec.hooks[0].url"),
        ({"url": "https://a.example.com./"}, "spec.hooks[0].url"),
        ({"url": "https://a.example.com:0/"}, "spec.hooks[0].url"),
        ({"url": "https://a.example.com:65536/"}, "spec.hooks[0].url"),
        ({"url": "https://2130706433/"}, "spec.hooks[0].url"),
        ({"url": "https://127.1/"}, "spec.hooks[0].url"),
        ({"url": "https://[::g]/"}, "spec.hooks[0].url"),
        ({"url": "https://[:::1]/"}, "spec.hooks[0].url"),
        ({"url": "https://[1.2.3.4]/"}, "spec.hooks[0].url"),
        ({"url": f"https://a.example.com/{'x' * 2048}"}, "spec.hooks[0].url"),
        ({"url": "https://$(name).example.com/"}, "spec.hooks[0].url"),
        ({"url": "https://a.example.com/$(tls.key)"}, "spec.hooks[0].url"),
        ({"url": "https://bücher.example.com/"}, "spec.hooks[0].url"),
        ({"after": "Sunset"}, "spec.hooks[0].after"),
        ({"method": "DELETE"}, "spec.hooks[0].method"),
        ({"method": "GET", "body": "{}"}, "spec.hooks[0].method"),
        ({"body": "{"}, "spec.hooks[0].body"),
        ({"body": "NaN"}, "spec.hooks[0].body"),
        ({"body": '["$(tls.pem)"]'}, "spec.hooks[0].body"),
        ({"body": '{"a": [{"b": "x$()"}]}'}, "spec.hooks[0].body"),
        ({"body": "[" * 10_000 + "]" * 10_000}, "spec.hooks[0].body"),
        ({"body": nested(10_000)}, "spec.hooks[0].body"),
        ({"body": nested(DEEPEST_BODY + 1)}, "spec.hooks[0].body"),
        ({"body": {"a": ["$(tls.pem)"]}}, "spec.hooks[0].body"),
        ({"body": {"a": "x" * LARGEST_BODY}}, "spec.hooks[0].body"),
        ({"body": {}, "method": "HEAD"}, "spec.hooks[0].method"),
        ({"body": "[" * (DEEPEST_BODY + 1) + "]" * (DEEPEST_BODY + 1)}, "spec.hooks[0].body"),
        ({"caBundle": "no PEM"}, "spec.hooks[0].caBundle"),
        ({"caBundle": of_another_version(a_root().pem)}, "spec.hooks[0].caBundle"),
        ({"caBundle": "x", "authority": "default"}, "spec.hooks[0]"),
        ({"timeout": "61s"}, "spec.hooks[0].timeout"),
        ({"timeout": "soon"}, "spec.hooks[0].timeout"),
        ({"headers": [{"name": "a b", "value": "1"}]}, "spec.hooks[0].headers[0].name"),
        ({"headers": [{"name": "Host", "value": "b.example.com"}]}, "spec.hooks[0].headers[0].name"),
        ({"headers": [{"name": "idempotency-key", "value": "1"}]}, "spec.hooks[0].headers[0].name"),
        ({"headers": [{"name": "A"}]}, "spec.hooks[0].headers[0]"),
        ({"headers": [{"name": "A", "value": "1"}, {"name": "a", "value": "2"}]}, "spec.hooks[0].headers"),
        ({"headers": [{"name": "A", "value": "1\r\nB: 2"}]}, "spec.hooks[0].headers[0].value"),
        ({"headers": [{"name": "A", "valueFrom": {}}]}, "spec.hooks[0].headers[0].valueFrom.secretKeyRef"),
        (from_secret(name="../../kube-system/secrets/x"), "spec.hooks[0].headers[0].valueFrom.secretKeyRef"),
        (from_secret(name="a?b"), "spec.hooks[0].headers[0].valueFrom.secretKeyRef"),
        (from_secret(key="a/b"), "spec.hooks[0].headers[0].valueFrom.secretKeyRef"),
        ({"headers": [{"name": f"A{n}", "value": "1"} for n in range(17)]}, "spec.hooks[0].headers"),
    ],
)
def test_what_cannot_be_read_is_refused_by_field(fields: Mapping[str, Any], field: str) -> None:
    assert refusal({"name": "ping", "url": URL, **fields}).startswith(f"{field}: ")


def test_what_stands_between_the_roots_of_a_hook_is_left_out() -> None:
    pem = a_root().pem.decode()
    (hook,) = parse_hooks([{"name": "ping", "url": URL, "caBundle": f"# für den Empfänger\n{pem}"}])

    assert hook.ca_bundle == pem


def test_hooks_are_few_and_each_has_a_name_of_its_own() -> None:
    assert "name of its own" in refusal({"name": "a", "url": URL}, {"name": "a", "url": URL})
    assert "8 hooks" in refusal(*({"name": f"a{n}", "url": URL} for n in range(9)))


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "http://hunter2@a.example.com/"},
        {"url": "ftp://a.example.com/hunter2"},
        {"url": "hunter2"},
        {"body": '"hunter2'},
        {"headers": [{"name": "A", "value": "hunter2\n"}]},
    ],
)
def test_a_refusal_repeats_no_secret(fields: Mapping[str, Any]) -> None:
    assert "hunter2" not in refusal({"name": "ping", "url": URL, **fields})


def test_the_annotation_is_a_hook_called_ping_and_its_path_stays_secret() -> None:
    good = read_wish("web-tls", {"certrenewal.dev/renew": "true", "certrenewal.dev/ping-url": URL})
    bad = read_wish(
        "web-tls", {"certrenewal.dev/renew": "true", "certrenewal.dev/ping-url": "http://a.example.com/hunter2"}
    )

    assert good.problem is None
    assert good.spec["hooks"] == [{"name": "ping", "url": URL}]
    assert "annotation certrenewal.dev/ping-url: 'http://a.example.com/…' cannot be read" in str(bad.problem)


# -- the request ---------------------------------------------------------------------------------------------------


def test_strings_of_the_body_hold_the_certificate_and_nothing_else_changes() -> None:
    body = {
        "name": "$(name)",
        "secure": {
            "crt": "$(tls.crt)",
            "key": "$(tls.key)",
            "all": ["a $(serial)", "$(notAfter)$(namespace)$(ca.crt)"],
        },
        "$(serial)": [1, 2.5, True, None],
        "kept": "$$(tls.key) $ ( $(",
    }

    request = render(a_hook(method="PUT", body=json.dumps(body)), FACTS, {})

    assert json.loads(request.body or b"") == {
        "name": FACTS.name,
        "secure": {
            "crt": FACTS.crt,
            "key": FACTS.key,
            "all": ["a 4711", f"{FACTS.not_after}shop{FACTS.ca}"],
        },
        "$(serial)": [1, 2.5, True, None],
        "kept": "$(tls.key) $ ( $(",
    }


@given(st.text())
def test_what_a_placeholder_stands_for_is_taken_as_it_is(text: str) -> None:
    """A value that looks like a placeholder, or like JSON, is neither."""
    facts = Facts(mark="m", crt=text, key="", ca="", serial="", not_after="", name="", namespace="")

    request = render(a_hook(body='{"a": "$(tls.crt)", "b": 1}'), facts, {})

    assert json.loads(request.body or b"") == {"a": text, "b": 1}


def test_the_url_quotes_what_it_takes() -> None:
    request = render(a_hook(url="https://h.example.com/$(namespace)/$(name)?until=$(notAfter)&s=$(serial)"), FACTS, {})

    assert request.url == "https://h.example.com/shop/web%2Ftls%26x?until=2026-03-02T12%3A00%3A00Z&s=4711"


def test_headers_take_their_values_from_secrets_and_the_key_is_that_of_hook_and_certificate() -> None:
    reference = {"secretKeyRef": {"name": "grafana", "key": "token"}}
    headers = [{"name": "Authorization", "valueFrom": reference}, {"name": "X", "value": "$(tls.key)"}]

    request = render(a_hook(headers=headers, body="1"), FACTS, {TOKEN: "Bearer t"})

    assert dict(request.headers) == {
        "Authorization": "Bearer t",
        "X": "$(tls.key)",
        "Content-Type": "application/json",
        "Idempotency-Key": f"{'ab' * 8}/ping",
    }


def test_a_content_type_of_its_own_goes_first() -> None:
    request = render(a_hook(headers=[{"name": "content-type", "value": "text/json"}], body="1"), FACTS, {})

    assert [value for name, value in request.headers if name.lower() == "content-type"] == ["text/json"]


@pytest.mark.parametrize(
    ("raw", "value"),
    [(b"Bearer t\n", "Bearer t"), (b"t", "t"), (b"", None), (b"a\nb", None), (b"\xff", None), (b"a\x00", None)],
)
def test_a_secret_gives_a_value_that_a_header_can_carry_or_none(raw: bytes, value: str | None) -> None:
    assert header_value(raw) == value


def test_nothing_secret_is_in_a_repr() -> None:
    hook = a_hook(body='"hunter2"', headers=[{"name": "A", "value": "hunter2"}])
    facts = Facts(mark="", crt="", key="hunter2", ca="", serial="", not_after="", name="", namespace="")
    request = render(a_hook(url=f"{URL}/hunter2", body='"$(tls.key)"'), facts, {})

    assert "hunter2" not in f"{hook!r} {facts!r} {request!r}"


def test_hooks_that_say_the_same_are_equal() -> None:
    """An annotated Secret's CertRenewal is written again only where it says something else."""
    filled_in = {"after": "Renewal", "clientCertificate": False, "timeout": "10s"}

    assert parse_hooks([{"name": "ping", "url": URL}]) == parse_hooks([{"name": "ping", "url": URL, **filled_in}])
