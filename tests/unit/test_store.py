"""Guards: a Secret is written no more than it has to be, and no name leads a request elsewhere."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from certrenewal.kube.client import Client, Configuration, Object
from certrenewal.kube.errors import Rejected
from certrenewal.kube.store import Secret, Store


class Sent(Client):
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.body: Object = {}

    async def request(self, method: str, path: str, **options: Any) -> Object:
        """Whatever it is, it is done."""
        self.body = options["body"]
        return {"metadata": {"resourceVersion": "8"}}


async def test_what_a_secret_holds_already_is_not_sent_again() -> None:
    sent, held = Sent(), {"tls.crt": b"old", "tls.key": b"key", "ca.crt": b"roots", "tls.der": b"form"}
    secret = Secret(
        namespace="shop",
        name="web-tls",
        uid="u",
        resource_version="7",
        immutable=False,
        annotations={},
        data=held,
    )

    version = await Store(sent, reporter="test").write_secret(
        secret, {"tls.crt": b"new", "tls.key": b"key", "ca.crt": b"roots", "tls.der": None, "key.der": None}
    )

    assert version == "8"
    assert sent.body == {
        "metadata": {"uid": "u", "resourceVersion": "7"},
        "data": {"tls.crt": base64.b64encode(b"new").decode(), "tls.der": None},
    }


@pytest.mark.parametrize("name", ["../../kube-system/secrets/x", "..", "%2e%2e/%2e%2e/kube-system/secrets/x", "./x"])
async def test_a_name_that_leads_elsewhere_is_asked_of_nobody(name: str) -> None:
    client = Client(Configuration(host="https://127.0.0.1:1"))

    with pytest.raises(Rejected, match="no path of the API"):
        await Store(client, reporter="test").read_secret("shop", name)
