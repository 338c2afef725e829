"""Guards: which ways to a certificate are tried, the cheapest that works first, and none that cannot work."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.domain.keys import KeyRotation
from certrenewal.domain.routes import Route, ladder
from tests.unit.builders import DAY, NOON, a_leaf

ENDED = NOON + DAY
SHORT: dict[str, Any] = {"not_after": NOON + timedelta(seconds=30)}
SERVER_ONLY: dict[str, Any] = {"client_auth": False}

SIGN, TOKEN, MTLS, REKEY = Route.SIGN, Route.RENEW_TOKEN, Route.RENEW_MTLS, Route.REKEY


def routes(
    leaf: dict[str, Any] | None,
    *,
    anew: bool = False,
    rotate: bool = False,
    can_sign: bool = True,
    ended: bool = False,
) -> list[Route]:
    facts = None if leaf is None else a_leaf(**leaf)
    now = NOON if not ended or facts is None else facts.not_after
    rotation = KeyRotation.ALWAYS if rotate else KeyRotation.NEVER
    return ladder(facts, anew=anew, rotation=rotation, can_sign=can_sign, now=now)


@pytest.mark.parametrize(
    ("leaf", "circumstances", "expected"),
    [
        pytest.param({}, {}, [TOKEN, MTLS, SIGN], id="renewal: token, then mTLS, then anew"),
        pytest.param({}, {"can_sign": False}, [TOKEN, MTLS], id="renew-only authority"),
        pytest.param({}, {"ended": True}, [TOKEN, SIGN], id="expired: TLS would refuse it"),
        pytest.param({}, {"ended": True, "can_sign": False}, [TOKEN], id="expired, renew-only"),
        pytest.param({"signs": False}, {}, [MTLS, SIGN], id="a key that may not sign makes no token"),
        pytest.param(SHORT, {}, [MTLS, SIGN], id="too short a life for a token"),
        pytest.param(SERVER_ONLY, {}, [SIGN], id="a server's certificate proves nothing as a client"),
        pytest.param(SERVER_ONLY, {"can_sign": False}, [], id="a server's certificate, renew-only: no way"),
        pytest.param({}, {"anew": True}, [SIGN], id="anew"),
        pytest.param({}, {"anew": True, "can_sign": False}, [], id="anew, renew-only: no way"),
        pytest.param(None, {}, [SIGN], id="no certificate yet"),
        pytest.param(None, {"can_sign": False}, [], id="no certificate yet, renew-only: no way"),
        pytest.param({}, {"rotate": True}, [SIGN], id="new key: signed"),
        pytest.param({}, {"rotate": True, "can_sign": False}, [REKEY], id="new key, renew-only: rekey"),
        pytest.param({}, {"rotate": True, "can_sign": False, "ended": True}, [], id="new key, expired, renew-only"),
        pytest.param(SERVER_ONLY, {"rotate": True, "can_sign": False}, [], id="new key for a server's certificate"),
    ],
)
def test_the_ladder_of_routes(
    leaf: dict[str, Any] | None, circumstances: dict[str, bool], expected: list[Route]
) -> None:
    assert routes(leaf, **circumstances) == expected


LEAVES = st.none() | st.fixed_dictionaries({"client_auth": st.booleans(), "signs": st.booleans()})
FLAGS = st.booleans()


@given(LEAVES, FLAGS, FLAGS, FLAGS, FLAGS)
def test_no_route_is_tried_that_cannot_give_what_is_wanted(
    leaf: dict[str, Any] | None, anew: bool, rotate: bool, can_sign: bool, ended: bool
) -> None:
    tried = routes(leaf, anew=anew, rotate=rotate, can_sign=can_sign, ended=ended)

    assert len(set(tried)) == len(tried)
    assert can_sign == (SIGN in tried)
    if rotate:
        assert not {TOKEN, MTLS} & set(tried)
    if ended:
        assert not {REKEY, MTLS} & set(tried)


def test_the_last_second_still_counts_as_alive() -> None:
    leaf = a_leaf()

    assert MTLS in ladder(
        leaf, anew=False, rotation=KeyRotation.NEVER, can_sign=False, now=ENDED - timedelta(seconds=1)
    )
    assert MTLS not in ladder(leaf, anew=False, rotation=KeyRotation.NEVER, can_sign=False, now=ENDED)
