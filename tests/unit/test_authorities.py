"""Guards: a certificate waits at the authority that its spec names, which goes when it is deleted, and only then."""

from __future__ import annotations

from typing import Any
from unittest import mock

from certrenewal.controller.authorities import Authorities
from certrenewal.controller.cache import Key
from certrenewal.domain.reasons import Reason


def of_names(*names: str, called: list[Key]) -> Authorities:
    """Authorities that were seen and not asked yet."""
    parts: dict[str, Any] = dict.fromkeys(("store", "reporter", "leads", "clock", "changed", "needed"), mock.Mock())
    authorities = Authorities(**parts, call_back=called.append)
    for name in names:
        authorities.see({"metadata": {"name": name, "uid": f"uid-of-{name}"}})
    return authorities


async def test_who_moves_to_another_authority_leaves_its_turn_at_the_old_one_to_the_next() -> None:
    inside, busy, mover, follower = (Key("shop", name) for name in ("inside", "busy", "mover", "follower"))
    called: list[Key] = []
    authorities = of_names("old", "new", called=called)
    await authorities.close()  # before any was asked: only their gates are wanted here
    assert authorities.enter("old", inside, 0.0)
    assert authorities.enter("new", busy, 0.0)
    assert not authorities.enter("old", mover, 1.0)
    assert not authorities.enter("old", follower, 2.0)

    assert not authorities.enter("new", mover, 1.0)
    authorities.leave("old", inside)

    assert called == [follower]
    assert authorities.enter("old", follower, 2.0)


async def test_an_authority_is_not_lost_with_the_one_that_had_its_name_before() -> None:
    authorities = of_names("default", called=[])
    authorities.see({"metadata": {"name": "default", "uid": "now"}})

    authorities.lose("default", "uid-of-default")
    known = authorities.view("default")
    authorities.lose("default", "now")
    gone = authorities.view("default")

    assert known is None  # not asked yet
    assert gone is not None
    assert gone.reason == Reason.AUTHORITY_NOT_FOUND
