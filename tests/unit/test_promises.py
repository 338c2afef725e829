"""Guards: a kill at any request leaves no form that nobody owns, asks for no second key, and leaks no certificate."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

import certrenewal.stepca.authority
from certrenewal.controller.revoking import FINALIZER
from certrenewal.domain import annotation
from certrenewal.domain.certificate import dump_key
from certrenewal.domain.formats import is_trust_store
from certrenewal.domain.status import condition_of
from certrenewal.kube.errors import Conflict
from tests.unit.builders import DAY, NOON, a_root, key_of
from tests.unit.simulation import SECRET, Replica, Shown, Trouble, Wish, World

MINUTE = timedelta(minutes=1)
DER = {"tls.der", "key.der"}


@pytest.fixture(scope="module", autouse=True)
def _shown_certificates() -> Iterator[None]:
    """A TLS context does not tell which certificate it shows: one that does takes its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certrenewal.stepca.authority, "client_context", Shown)
        yield


class Watched(World):
    """Notes what is asked of the CA, and which finalizers there were then."""

    def __init__(self, wish: Wish) -> None:
        self.asks = 0
        self.held: list[bool] = []
        super().__init__(wish, NOON)

    def asked(self, replica: Replica) -> None:
        self.asks += 1
        metadata = (self.objects.get("certrenewals", self.wish.key.name) or {})["metadata"]
        self.held.append(FINALIZER in metadata.get("finalizers", ()))

    def written(self, replica: Replica, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
        held = [x509.load_pem_x509_certificates(after["tls.crt"])[0]]
        if "tls.der" in after:
            held.append(x509.load_der_x509_certificate(after["tls.der"]))
        if "tls-combined.pem" in after:
            held.append(x509.load_pem_x509_certificates(after["tls-combined.pem"])[0])
        assert len({*held}) == 1, "a write that leaves two certificates"

    def serial(self) -> str:
        """Of the certificate in the Secret."""
        return str(x509.load_pem_x509_certificates(self.data()["tls.crt"])[0].serial_number)

    def is_settled(self) -> bool:
        """Whether status tells of what the Secret holds."""
        certificate = self.status().get("certificate") or {}
        return condition_of(self.status(), "Ready").get("status") == "True" and certificate["serial"] == self.serial()


def kills() -> Iterator[tuple[str, int, bool]]:
    """A kind of request, how many of it go well before, and whether it takes effect before the process ends."""
    yield from itertools.product(["PATCH secrets", "PATCH certrenewals/status", "/sign"], range(4), [False, True])


def at(world: World, operation: str, number: int, act: Callable[[World], object], *, late: bool) -> None:
    """Have something happen at the request of this kind after so many others."""
    world.troubles[operation].extend([Trouble(act=lambda _: None)] * number + [Trouble(act=act, late=late)])


@pytest.mark.parametrize("annotated", [False, True], ids=["by hand", "annotated"])
@pytest.mark.parametrize("first", [False, True], ids=["later", "with the first certificate"])
def test_a_form_that_was_withdrawn_while_the_operator_was_killed_is_gone(annotated: bool, first: bool) -> None:
    def withdraw(world: World) -> None:
        world.want(formats=())
        world.kill()

    for operation, number, late in kills():
        with Watched(Wish(annotated=annotated, formats=("der",) if first else ())) as world:
            if not first:
                world.run(MINUTE)
                world.want(formats=("der",))
            at(world, operation, number, withdraw, late=late)
            world.run(MINUTE)
            if not world.troubles[operation]:
                assert world.is_settled()
                assert not DER & world.data().keys()
                assert world.status().get("formats") is None


def test_every_write_leaves_the_same_certificate_in_all_forms() -> None:
    with Watched(Wish(annotated=False, formats=("der", "combined"))) as world:
        world.run(3 * DAY)
        data = world.data()

        assert world.asks >= 4
        assert data["tls-combined.pem"] == data["tls.key"] + data["tls.crt"]


@pytest.mark.parametrize("late", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("lag", [timedelta(0), timedelta(seconds=1)], ids=["quick", "slow"])
def test_a_wish_that_changes_around_a_promise_is_met(number: int, late: bool, lag: timedelta) -> None:
    with Watched(Wish(annotated=False, formats=("der",))) as world:
        world.lag = lag
        names = ("web.shop.svc", "api.shop.svc")
        at(world, "PATCH certrenewals/status", number, lambda world: world.want(names=names), late=late)
        world.run(2 * MINUTE)

        if not world.troubles["PATCH certrenewals/status"]:
            assert world.is_settled()
            assert world.status()["certificate"]["names"] == [*names]


def test_a_form_that_somebody_else_filled_is_not_ours_before_we_wrote_it() -> None:
    def withdraw(world: World) -> None:
        world.want(formats=())
        raise Conflict("409")

    with Watched(Wish(annotated=False)) as world:
        world.run(MINUTE)
        world.edit({"key.der": b"mine"})
        world.want(formats=("der",))
        world.troubles["PATCH secrets"].append(Trouble(act=withdraw))
        world.run(MINUTE)

        assert world.data()["key.der"] == b"mine"
        assert "tls.der" not in world.data()


@pytest.mark.parametrize("annotated", [False, True], ids=["by hand", "annotated"])
def test_revoke_now_takes_one_certificate_wherever_the_operator_is_killed_after_it(annotated: bool) -> None:
    for operation, number, late in kills():
        with Watched(Wish(annotated=annotated)) as world:
            world.run(MINUTE)
            old, key = world.serial(), world.data()["tls.key"]
            world.annotate({annotation.REVOKE_NOW: "1"})
            asks_after: list[int] = []

            def kill(world: World, old: str = old, asks_after: list[int] = asks_after) -> None:
                assert isinstance(world, Watched)
                if world.serial() != old:
                    asks_after.append(world.asks)
                world.kill()

            at(world, operation, number, kill, late=late)
            world.run(MINUTE)

            assert world.is_settled()
            assert world.asks <= 3
            assert asks_after in ([], [world.asks])
            assert world.data()["tls.key"] != key
            assert {*world.ca.revoked} == {
                old
            }  # twice, where a kill came between: the CA says that it was, and that is fine
            assert world.status()["revokeNow"] == "1"
            assert "revoking" not in world.status()


def test_a_request_that_was_met_is_met_again_for_the_next_value() -> None:
    with Watched(Wish(annotated=False)) as world:
        for value in ("1", "2"):
            world.run(MINUTE)
            old = world.serial()
            world.annotate({annotation.REVOKE_NOW: value})
            world.run(MINUTE)
            assert world.ca.revoked[-1] == old

        assert world.asks == 3


def test_a_key_that_was_put_back_is_replaced_once_more() -> None:
    """A request counts as met while the Secret holds another key, and not because a write of ours went through."""
    with Watched(Wish(annotated=False)) as world:
        world.run(MINUTE)
        old = {name: world.data()[name] for name in ("tls.crt", "tls.key")}

        def put_back(world: World) -> None:
            world.edit(old)
            world.kill()

        world.annotate({annotation.REVOKE_NOW: "1"})
        world.troubles["PATCH secrets"].append(Trouble(act=put_back, late=True))
        world.run(MINUTE)

        assert world.is_settled()
        assert world.data()["tls.key"] not in (old["tls.key"], dump_key(key_of()))


def test_a_finalizer_that_could_not_be_set_is_awaited() -> None:
    def contradict(_: World) -> None:
        raise Conflict("409")

    with Watched(Wish(annotated=True, revoke=("OnDelete",))) as world:
        at(world, "PATCH certrenewals", 1, contradict, late=False)
        world.run(MINUTE)

        assert not world.troubles["PATCH certrenewals"]
        assert world.held == [True]


@pytest.mark.parametrize("annotated", [False, True], ids=["by hand", "annotated"])
def test_the_ca_is_asked_only_when_the_finalizer_is_there(annotated: bool) -> None:
    with Watched(Wish(annotated=annotated, revoke=("OnDelete",))) as world:
        world.run(MINUTE)

        assert world.held == [True]
        assert (world.objects.get("secrets", SECRET.name) or {})["metadata"].get("finalizers") is None
        world.want(revoke=())
        world.run(MINUTE)
        assert not (world.objects.get("certrenewals", world.wish.key.name) or {})["metadata"]["finalizers"]


def test_a_key_store_is_opened_and_kept_where_it_is_ours_and_else_replaced_unopened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[bytes] = []
    load = pkcs12.load_pkcs12

    def noted(store: bytes, password: bytes | None) -> pkcs12.PKCS12KeyAndCertificates:
        opened.append(store)
        return load(store, password)

    monkeypatch.setattr(pkcs12, "load_pkcs12", noted)
    with Watched(Wish(annotated=False, formats=("truststore",))) as world:
        world.run(MINUTE)
        ours = world.data()["truststore.p12"]
        world.restart()
        world.want(names=("web.shop.svc", "api.shop.svc"))
        world.run(MINUTE)
        kept = world.data()["truststore.p12"]
        world.edit({"truststore.p12": b"takes hours to be opened"})
        world.run(MINUTE)

        assert kept == ours
        assert ours in opened
        assert b"takes hours to be opened" not in opened
        assert is_trust_store(world.data()["truststore.p12"], (a_root().certificate,))
