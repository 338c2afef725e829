"""Guards: an answer of the API server can be read however deep one object in it nests, and loses nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certrenewal.kube.depth import DEEPEST, loads, shallow

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(['{"', '\\"[', "}]", "\\"])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=50)


def deep(levels: int, opening: str = '{"a":', closing: str = "}") -> bytes:
    return (opening * levels + "1" + closing * levels).encode()


def depth_of(value: Any) -> int:
    """How deep a value nests that is one branch."""
    levels = 0
    while isinstance(value, list | dict):
        value, levels = (value["a"] if isinstance(value, dict) else value[0]), levels + 1
    return levels


@settings(max_examples=30)
@given(VALUES)
def test_what_nests_as_usual_is_left_as_it_is(value: Any) -> None:
    text = json.dumps([value] * (DEEPEST + 1)).encode()

    assert shallow(text) is text


@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]")])
def test_the_deepest_that_is_read_is_read_whole(opening: str, closing: str) -> None:
    assert shallow(deep(DEEPEST, opening, closing)) == deep(DEEPEST, opening, closing)
    cut = json.loads(shallow(deep(DEEPEST + 1, opening, closing)))
    assert depth_of(cut) == DEEPEST


@settings(max_examples=30)
@given(VALUES, VALUES, st.integers(DEEPEST, 10_000))
def test_what_is_too_deep_is_null_and_all_beside_it_stays(before: Any, after: Any, levels: int) -> None:
    text = b'{"before":' + json.dumps(before).encode() + b',"spec":' + deep(levels)
    text += b',"after":' + json.dumps(after).encode() + b"}"

    read = json.loads(shallow(text))

    assert (read["before"], read["after"]) == (before, after)
    assert depth_of(read["spec"]) == DEEPEST - 1


@settings(max_examples=30)
@given(st.integers(1, 10_000))
def test_a_list_is_read_whatever_is_in_it(levels: int) -> None:
    first, second = loads(b'[{"name":"web"},' + deep(levels) + b"]")

    assert first == {"name": "web"}
    assert min(levels, DEEPEST - 1) <= depth_of(second) <= levels
