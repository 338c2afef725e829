"""Which provisioner's key is opened, and which is refused with a word that does not repeat it?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from joserfc import jwe, jwk

from certrenewal.domain.authority import ProvisionerRef, SecretKeyRef
from certrenewal.domain.certificate import jws_algorithm
from certrenewal.stepca.errors import BadAnswer
from certrenewal.stepca.provisioner import Provisioner, find
from certrenewal.stepca.transport import Transport

PASSWORD = b"a password of the provisioner"
WANTED = ProvisionerRef(name="ops", kid=None, password=SecretKeyRef(namespace="system", name="p", key="password"))


class Told(Transport):
    """A CA with one provisioner, whose private key is this JWK."""

    def __init__(self, private: Mapping[str, Any]) -> None:
        header = {"alg": "PBES2-HS256+A128KW", "enc": "A256GCM", "p2c": 1000}
        opened = jwk.OctKey.import_key(PASSWORD)
        algorithms = [header["alg"], header["enc"]]
        text = jwe.encrypt_compact(header, json.dumps(private), opened, algorithms=algorithms)  # type: ignore[arg-type]
        self.entry = {"type": "JWK", "name": "ops", "key": {"kid": "k"}, "encryptedKey": text}

    async def call(self, method: str, path: str, **_: Any) -> dict[str, Any]:
        """The list of provisioners."""
        return {"provisioners": [self.entry]}


async def found(key: jwk.Key) -> Provisioner:
    """The provisioner with this key."""
    return await find(Told(key.as_dict(private=True)), WANTED, PASSWORD)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (jwk.ECKey.generate_key("P-256"), "ES256"),
        (jwk.ECKey.generate_key("P-521"), "ES512"),
        (jwk.RSAKey.generate_key(2048), "RS256"),
        (jwk.OKPKey.generate_key("Ed25519"), "EdDSA"),
    ],
    ids=["P-256", "P-521", "RSA", "Ed25519"],
)
async def test_a_key_that_signs_is_opened(key: jwk.Key, algorithm: str) -> None:
    assert jws_algorithm((await found(key)).key) == algorithm


@pytest.mark.parametrize(
    "key", [jwk.ECKey.generate_key("secp256k1"), jwk.OKPKey.generate_key("X25519")], ids=["secp256k1", "X25519"]
)
async def test_a_key_that_signs_no_tokens_is_refused_in_words_that_do_not_repeat_it(key: jwk.Key) -> None:
    with pytest.raises(
        BadAnswer, match=r"^spec\.provisioner: .* 'ops' cannot sign tokens: name one with a key on P-256, P-384"
    ) as told:
        await found(key)

    assert str(key.as_dict(private=True)["d"]) not in str(told.value)
    assert told.value.__cause__ is None
