"""Guards: a caller is a ServiceAccount or nobody, and what it asks for is read whole or refused by field."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.domain.asking import Ask, Caller, parse_ask, parse_caller
from certrenewal.domain.spec import InvalidSpec
from tests.unit.builders import names


def test_a_service_account_is_a_caller() -> None:
    assert parse_caller("system:serviceaccount:shop:web") == Caller("shop", "web")


@pytest.mark.parametrize(
    "username",
    ["", "ann", "system:serviceaccount", "system:serviceaccount:shop", "system:serviceaccount:shop:", "shop:web",
     "system:serviceaccount::web", "system:serviceaccount:shop:web:more", "system:node:shop:web"],
)  # fmt: skip
def test_nobody_else_is(username: str) -> None:
    assert parse_caller(username) is None


def test_names_are_enough() -> None:
    ask = parse_ask({"names": ["Web.shop.svc", "10.1.2.3"]})

    assert ask == Ask(names=names("web.shop.svc", "10.1.2.3"), authority="default", lifetime=timedelta(minutes=5))


def test_the_rest_may_be_said() -> None:
    ask = parse_ask({"names": ["web.shop.svc"], "authority": "internal", "lifetime": "90s"})

    assert (ask.authority, ask.lifetime) == ("internal", timedelta(seconds=90))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        (None, "body"),
        ("names", "body"),
        ({}, "names"),
        ({"names": "web.shop.svc"}, "names"),
        ({"names": []}, "names"),
        ({"names": [1]}, "names"),
        ({"names": ["a..b"]}, "names"),
        ({"names": ["x"] * 101}, "names"),
        ({"names": ["web.shop.svc"], "lifetime": "1d"}, "lifetime"),
        ({"names": ["web.shop.svc"], "lifetime": "61m"}, "lifetime"),
        ({"names": ["web.shop.svc"], "lifetime": "999ms"}, "lifetime"),
        ({"names": ["web.shop.svc"], "lifetime": 300}, "lifetime"),
        ({"names": ["web.shop.svc"], "lifetime": None}, "lifetime"),
        ({"names": ["web.shop.svc"], "authority": "Internal"}, "authority"),
        ({"names": ["web.shop.svc"], "authority": ["internal"]}, "authority"),
        ({"names": ["web.shop.svc"], "duration": "24h"}, "duration"),
    ],
)
def test_what_cannot_be_read_is_named(body: Any, field: str) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        parse_ask(body)

    assert refusal.value.field == field


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=8), parts, max_size=3),
)


@given(st.fixed_dictionaries({}, optional={"names": JSON | st.lists(st.text()), "authority": JSON, "lifetime": JSON}))
def test_whatever_is_asked_is_read_or_refused(body: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidSpec):
        assert parse_ask(body).names
