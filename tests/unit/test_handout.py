"""Guards: nobody gets a token who has not proved to be somebody, asks too often, or may not have the names."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from certrenewal.controller.handout import AUDIENCE, STRANGERS_PER_MINUTE, Denied, Handout, Limiter, Review, seconds
from certrenewal.domain.asking import Caller
from certrenewal.domain.authority import AuthorityView
from certrenewal.kube.errors import Unavailable
from certrenewal.stepca.authority import Authority, Minted
from certrenewal.stepca.errors import Unreachable
from tests.unit.builders import NOON, a_rule, an_authority

WEB = Caller("shop", "web")
WISH: Mapping[str, Any] = {"names": ["web.shop.svc"]}


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


class Signer:
    """Signs what it is asked for."""

    def mint(self, *, names: Any, lifetime: timedelta, now: datetime) -> Minted:
        return Minted(token=f"for {names[0]}", url="https://ca", fingerprint="ab", expires=now + lifetime)


class OneAuthority:
    """The authority of that view, which is ``default``."""

    def __init__(self, view: AuthorityView | None, *, gone: bool = False) -> None:
        self._view = view
        self._gone = gone

    def view(self, name: str) -> AuthorityView | None:
        return self._view

    def use(self, name: str) -> Authority:
        if self._gone:
            raise Unreachable("it is being set up again")
        return Signer()  # type: ignore[return-value]

    def report(self, name: str, failure: Unreachable) -> None:
        raise AssertionError


def a_handout(
    *,
    users: Mapping[str, str] | None = None,
    view: AuthorityView | None = None,
    asked: bool = True,
    gone: bool = False,
    namespaces: tuple[str, ...] = (),
    labels: Mapping[str, Mapping[str, str]] | None = None,
    clock: Clock | None = None,
    per_minute: int = 3,
    review: Review | None = None,
) -> Handout:
    """One that knows the tokens of ``users`` and one authority."""

    async def known(token: str, audience: str) -> str | None:
        assert audience == AUDIENCE
        if token == "down":
            raise Unavailable("the API server is down")
        return (users or {"proof": "system:serviceaccount:shop:web"}).get(token)

    return Handout(
        review=review or known,
        authorities=OneAuthority((view or an_authority()) if asked else None, gone=gone),
        labels={"shop": {}} if labels is None else labels,
        namespaces=namespaces,
        cluster_domain="cluster.local",
        per_minute=per_minute,
        clock=clock or Clock(),
    )


def refusal_of(handout: Handout, body: Any, caller: Caller = WEB) -> Denied:
    """How the request is refused."""
    with pytest.raises(Denied) as refusal:
        handout.mint(caller, json.dumps(body).encode())
    return refusal.value


async def test_a_service_account_is_identified_by_its_token() -> None:
    handout = a_handout()

    assert await handout.identify("Bearer proof", "10.0.0.1") == WEB
    assert await handout.identify("bearer proof", "10.0.0.1") == WEB


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic proof", "proof", "Bearer other", "Bearer of-ann"])
async def test_who_proves_nothing_is_nobody(header: str) -> None:
    handout = a_handout(users={"of-ann": "ann", "proof": "system:serviceaccount:shop:web"})

    with pytest.raises(Denied) as refusal:
        await handout.identify(header, "10.0.0.1")

    assert (refusal.value.status, refusal.value.reason) == (401, "Unauthorized")


async def test_an_api_server_that_does_not_answer_is_no_refusal() -> None:
    with pytest.raises(Denied) as refusal:
        await a_handout().identify("Bearer down", "10.0.0.1")

    assert refusal.value.status == 503


async def test_who_asks_too_often_waits_and_nobody_else_does() -> None:
    clock = Clock()
    users = {name: f"system:serviceaccount:shop:{name}" for name in ("web", "db")}
    handout = a_handout(clock=clock, users=users)
    for _ in range(3):
        await handout.identify("Bearer web", "10.0.0.1")

    with pytest.raises(Denied) as refusal:
        await handout.identify("Bearer web", "10.0.0.2")
    await handout.identify("Bearer db", "10.0.0.1")

    assert refusal.value.status == 429
    assert refusal.value.retry_after == timedelta(seconds=20)
    clock.now += timedelta(seconds=20)
    assert await handout.identify("Bearer web", "10.0.0.1") == WEB


async def test_who_asks_too_often_costs_the_api_server_nothing() -> None:
    asked: list[str] = []

    async def review(token: str, audience: str) -> str:
        asked.append(token)
        return "system:serviceaccount:shop:web"

    handout = a_handout(per_minute=2, review=review)
    for _ in range(5):
        with contextlib.suppress(Denied):
            await handout.identify("Bearer proof", "10.0.0.1")

    assert len(asked) == 2


async def test_a_proof_that_was_good_once_is_asked_about_again() -> None:
    users = {"proof": "system:serviceaccount:shop:web"}
    handout = a_handout(users=users)
    await handout.identify("Bearer proof", "10.0.0.1")
    users["proof"] = "ann"

    with pytest.raises(Denied) as refusal:
        await handout.identify("Bearer proof", "10.0.0.1")

    assert refusal.value.status == 401


async def test_who_guesses_is_not_asked_about_for_ever() -> None:
    handout = a_handout()
    for _ in range(STRANGERS_PER_MINUTE):
        with pytest.raises(Denied):
            await handout.identify("Bearer guess", "10.0.0.1")

    with pytest.raises(Denied) as refusal:
        await handout.identify("Bearer down", "10.0.0.1")

    assert refusal.value.status == 429
    assert await handout.identify("Bearer proof", "10.0.0.2") == WEB


def test_a_namespace_gets_tokens_for_its_own_services() -> None:
    answer = a_handout().mint(WEB, json.dumps({**WISH, "lifetime": "1m"}).encode())

    assert answer == {
        "token": "for web.shop.svc",
        "caUrl": "https://ca",
        "fingerprint": "ab",
        "expiresAt": "2026-03-01T12:01:00Z",
    }


@pytest.mark.parametrize("account", ["web", "web-1"])
def test_a_rule_may_be_for_some_service_accounts(account: str) -> None:
    rule = a_rule("*.example.com", accounts=("web", "web-*"))
    handout, body = a_handout(view=an_authority(policy=(rule,))), {"names": ["www.example.com"]}

    assert handout.mint(Caller("shop", account), json.dumps(body).encode())
    refusal = refusal_of(handout, body, Caller("shop", "other"))
    assert (refusal.status, refusal.reason) == (403, "NameDenied")
    assert '{namespaces: ["shop"], serviceAccounts: ["other"], names: ["www.example.com"]}' in refusal.message


@pytest.mark.parametrize(
    ("longest", "status"), [(None, 403), (timedelta(hours=2), 403), (timedelta(hours=1), 200)],
    ids=["nothing is known of the provisioner", "it signs more", "it signs no more"],
)  # fmt: skip
def test_a_rule_with_a_longest_life_gives_a_token_where_the_provisioner_keeps_it(
    longest: timedelta | None, status: int
) -> None:
    rule = a_rule("*.example.com", max_duration=timedelta(hours=1))
    handout = a_handout(view=an_authority(policy=(rule,), longest=longest))
    body = {"names": ["www.example.com"]}

    if status == 200:
        assert handout.mint(WEB, json.dumps(body).encode())
    else:
        assert "maxTLSCertDuration" in refusal_of(handout, body).message


@pytest.mark.parametrize(
    ("setting", "body", "status", "reason"),
    [
        pytest.param({"namespaces": ("bank",)}, WISH, 403, "Forbidden", id="a namespace that is not watched"),
        pytest.param({"labels": {}}, WISH, 503, "ServiceUnavailable", id="a namespace that is not known yet"),
        pytest.param({}, {}, 400, "InvalidSpec", id="a field that cannot be read"),
        pytest.param({"asked": False}, WISH, 503, "AuthorityNotReady", id="an authority that was not asked yet"),
        pytest.param(
            {"view": an_authority(ready=False, reason="AuthorityNotFound")}, WISH, 400, "AuthorityNotFound",
            id="no authority",
        ),
        pytest.param(
            {"view": an_authority(ready=False, reason="AuthorityUnreachable")}, WISH, 503, "AuthorityUnreachable",
            id="a CA that is down",
        ),
        pytest.param({"view": an_authority(can_sign=False)}, WISH, 503, "AuthorityNotReady", id="renew-only"),
        pytest.param({"gone": True}, WISH, 503, "AuthorityUnreachable", id="an authority that is set up again"),
        pytest.param({}, {"names": ["web.bank.svc"]}, 403, "NameDenied", id="names of another namespace"),
        pytest.param(
            {"view": an_authority(ready=False, reason="AuthorityUnreachable")}, {"names": ["web.bank.svc"]}, 403,
            "NameDenied", id="denied, whether the CA is there or not",
        ),
    ],
)  # fmt: skip
def test_each_refusal_has_its_status_and_reason(setting: dict[str, Any], body: Any, status: int, reason: str) -> None:
    refusal = refusal_of(a_handout(**setting), body)

    assert (refusal.status, refusal.reason) == (status, reason)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 5000, b'{"names": ["a"]} more'])
def test_what_is_no_json_is_told(body: bytes) -> None:
    with pytest.raises(Denied) as refusal:
        a_handout().mint(WEB, body)

    assert (refusal.value.status, refusal.value.reason) == (400, "BadRequest")


def test_who_was_quiet_for_long_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certrenewal.controller.handout.MOST_BUCKETS", 2)
    clock = Clock()
    limiter = Limiter(60, clock)
    for who in ("a", "b"):
        limiter.count(who)
    clock.now += timedelta(minutes=1)

    limiter.count("c")

    assert list(limiter._buckets) == ["c"]


@pytest.mark.parametrize(("delay", "said"), [(0.1, 1), (1, 1), (1.1, 2), (60, 60)])
def test_a_wait_is_said_in_whole_seconds(delay: float, said: int) -> None:
    assert seconds(timedelta(seconds=delay)) == said
