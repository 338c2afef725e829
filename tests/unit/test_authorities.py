"""Guards: a certificate waits at the authority that its spec names, and takes up no place at another."""

from __future__ import annotations

from typing import Any
from unittest import mock

from certrenewal.controller.authorities import Authorities
from certrenewal.controller.cache import Key


async def test_who_moves_to_another_authority_leaves_its_turn_at_the_old_one_to_the_next() -> None:
    inside, busy, mover, follower = (Key("shop", name) for name in ("inside", "busy", "mover", "follower"))
    called: list[Key] = []
    parts: dict[str, Any] = dict.fromkeys(("store", "reporter", "leads", "clock", "changed", "needed"), mock.Mock())
    authorities = Authorities(**parts, call_back=called.append)
    for name in ("old", "new"):
        authorities.see({"metadata": {"name": name, "uid": name}})
    await authorities.close()  # before any was asked: only their gates are wanted here
    assert authorities.enter("old", inside, 0.0)
    assert authorities.enter("new", busy, 0.0)
    assert not authorities.enter("old", mover, 1.0)
    assert not authorities.enter("old", follower, 2.0)

    assert not authorities.enter("new", mover, 1.0)
    authorities.leave("old", inside)

    assert called == [follower]
    assert authorities.enter("old", follower, 2.0)
