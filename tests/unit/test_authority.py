"""Guards: what a CertAuthority says is read, or refused by its field."""

from __future__ import annotations

import pytest

from certrenewal.domain.authority import parse_authority
from certrenewal.domain.spec import InvalidSpec


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://ca.test",
        "https://",
        "https://ca.test/path",
        "https://ca.test?a",
        "https://ca.test#a",
        "https://me@ca.test",
        "https://ca.test:0",
        "https://ca.test:99999",
        "https://ca.test:web",
        "https://[1.2.3.4]",
        "https://[::::]",
    ],
)
def test_a_url_that_leads_to_no_ca_is_refused(url: str) -> None:
    with pytest.raises(InvalidSpec, match=r"spec\.url.*write https://HOST"):
        parse_authority({"url": url})


@pytest.mark.parametrize("url", ["https://ca.test", "https://ca.test/", "https://ca.test:9000", "https://[::1]:9000"])
def test_a_url_is_host_and_port(url: str) -> None:
    assert parse_authority({"url": url}).url == url.rstrip("/")
