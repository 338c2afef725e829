"""Guards: the API server's word counts for the audience that was asked about, and for no other."""

from __future__ import annotations

from typing import Any

import pytest

from certrenewal.kube.client import Client
from certrenewal.kube.store import Store

USER = {"username": "system:serviceaccount:shop:web"}


class ApiServer:
    """Answers every review with the same status."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status
        self.asked: dict[str, Any] = {}

    async def request(self, method: str, path: str, *, body: dict[str, Any]) -> dict[str, Any]:
        self.asked = body["spec"]
        return {"status": self.status}


async def review(status: dict[str, Any]) -> str | None:
    """Whose token it is by that status."""
    server = ApiServer(status)
    client: Client = server  # type: ignore[assignment]
    user = await Store(client, reporter="").review_token("proof", "certrenewal.dev")
    assert server.asked == {"token": "proof", "audiences": ["certrenewal.dev"]}
    return user


async def test_a_token_for_the_audience_is_its_users() -> None:
    status = {"authenticated": True, "user": USER, "audiences": ["certrenewal.dev"]}

    assert await review(status) == USER["username"]


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"authenticated": False, "error": "expired"},
        {"authenticated": True, "user": USER},
        {"authenticated": True, "user": USER, "audiences": None},
        {"authenticated": True, "user": USER, "audiences": ["https://kubernetes.default.svc"]},
        {"user": USER, "audiences": ["certrenewal.dev"]},
    ],
    ids=["nothing", "refused", "no audiences", "null audiences", "another audience", "not authenticated"],
)
async def test_all_else_is_nobodys(status: dict[str, Any]) -> None:
    assert await review(status) is None
