"""Guards: an authority is asked by as many at a time as it allows, the nearest expiry first, and nobody is forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.controller.cache import Key
from certrenewal.controller.gate import Gate


def a_key(number: int) -> Key:
    """One of several certificates; the number is when it ends."""
    return Key("shop", f"w{number:02}")


def number_of(key: Key) -> int:
    """The number of a certificate."""
    return int(key.name.removeprefix("w"))


class Crowd:
    """Certificates that ask, each as urgent as its number is small, and come again when they are called back."""

    def __init__(self, size: int) -> None:
        self.called: list[Key] = []
        self.gate = Gate(self.called.append)
        self.gate.size = size
        self.wants: set[int] = set()
        self.inside: list[int] = []
        self.served: list[int] = []

    def ask(self, number: int) -> None:
        """Ask, now and whenever it is called back."""
        self.wants.add(number)
        self.look(number)

    def look(self, number: int) -> None:
        """What a look does, whatever brought it."""
        if number in self.inside:
            return
        if number not in self.wants:
            self.gate.forget(a_key(number))
        elif self.gate.enter(a_key(number), float(number)):
            self.inside.append(number)

    def answer(self) -> None:
        """The first one inside has its answer."""
        number = self.inside.pop(0)
        self.served.append(number)
        self.wants.discard(number)
        self.gate.leave(a_key(number))

    def come(self, which: int = 0) -> None:
        """One of those called back looks."""
        self.look(number_of(self.called.pop(which % len(self.called))))

    def drain(self) -> None:
        """Until nobody is inside, or on the way."""
        while self.called or self.inside:
            while self.called:
                self.come()
            if self.inside:
                self.answer()


def test_no_more_are_inside_than_there_is_room_for() -> None:
    crowd = Crowd(2)

    for number in range(5):
        crowd.ask(number)

    assert crowd.inside == [0, 1]


def test_the_nearest_expiry_is_next_whoever_came_first() -> None:
    crowd = Crowd(1)
    for number in (5, 9, 3, 7, 1):
        crowd.ask(number)

    crowd.drain()

    assert crowd.served == [5, 1, 3, 7, 9]


@given(st.permutations(range(12)), st.integers(1, 5))
def test_everybody_is_served(order: list[int], size: int) -> None:
    crowd = Crowd(size)
    for number in order:
        crowd.ask(number)

    assert len(crowd.inside) <= size
    crowd.drain()

    assert sorted(crowd.served) == list(range(12))


@given(
    st.lists(st.tuples(st.sampled_from(["ask", "answer", "come", "give up", "resize"]), st.integers(0, 7))),
    st.integers(1, 3),
)
def test_no_place_is_lost_whatever_comes_between_a_call_and_its_look(
    happenings: list[tuple[str, int]], size: int
) -> None:
    crowd = Crowd(size)

    for what, number in happenings:
        match what:
            case "ask":
                crowd.ask(number)
            case "answer" if crowd.inside:
                crowd.answer()
            case "come" if crowd.called:
                crowd.come(number)
            case "give up" if number not in crowd.inside:
                crowd.wants.discard(number)
            case "resize":
                crowd.gate.size = number + 1
    crowd.drain()

    assert not crowd.wants


@pytest.mark.parametrize("urgency", [1.0, 9.0])
def test_one_that_asks_no_more_makes_room_for_the_next(urgency: float) -> None:
    called: list[Key] = []
    gate = Gate(called.append)
    gate.enter(a_key(0), 0.0)
    gate.enter(a_key(1), urgency)
    gate.enter(a_key(2), 5.0)

    gate.leave(a_key(0))
    gate.forget(a_key(1))

    assert called[-1] == a_key(2)
    assert gate.enter(a_key(2), 5.0)


def test_a_place_that_is_kept_for_the_most_urgent_is_not_taken() -> None:
    """Between the call and the look that it leads to, anybody else may ask."""
    gate = Gate(lambda _: None)
    gate.enter(a_key(0), 0.0)
    gate.enter(a_key(1), 1.0)
    gate.leave(a_key(0))

    assert not gate.enter(a_key(2), 2.0)
    assert gate.enter(a_key(1), 1.0)


def test_who_was_called_and_has_nothing_to_ask_leaves_the_place_to_the_next() -> None:
    called: list[Key] = []
    gate = Gate(called.append)
    first, second, third = map(a_key, range(3))
    assert gate.enter(first, 0.0)
    assert not gate.knock(second, 1.0)
    assert not gate.knock(third, 2.0)

    gate.leave(first)
    assert gate.knock(second, 1.0)
    gate.forget(second)

    assert called == [second, third]
