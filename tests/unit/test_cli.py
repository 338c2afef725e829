"""Guards: options that make no sense are refused before anything starts."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from certrenewal.cli import main


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--token-listen=127.0.0.1:8443"], "--token-names"),
        (["--token-listen=8443"], "HOST:PORT"),
        (["--tokens-per-minute=0"], "--tokens-per-minute"),
        (["--token-listen=127.0.0.1:8443", "--token-names=a..b"], "a..b"),
    ],
)
def test_a_token_endpoint_needs_an_address_and_names(options: list[str], words: str) -> None:
    outcome = CliRunner().invoke(main, ["operator", *options])

    assert outcome.exit_code == 2
    assert words in outcome.output
