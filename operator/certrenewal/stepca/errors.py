"""What can go wrong with an authority?

AuthorityError
 ├─ Unreachable   no answer, or one that says "later": try again, nobody needs to change anything
 ├─ Refused       a clear no, with the CA's own words: somebody must change something
 ├─ BadAnswer     an answer that must not be believed: a foreign key, an expired certificate, HTML of a proxy
 └─ NotReady      the authority cannot be used yet, with the reason that its condition shows
"""

from __future__ import annotations

from datetime import timedelta

from certrenewal.domain.reasons import Reason


class AuthorityError(Exception):
    """Anything that keeps an authority from doing what it was asked; the message is for users."""

    reason: Reason = Reason.AUTHORITY_UNREACHABLE
    status: int | None = None  # of HTTP, where there was an answer
    retry_after: timedelta | None = None


class Unreachable(AuthorityError):
    """The CA did not answer, or said (``status`` 429 or from 500) that it cannot now."""

    def __init__(self, message: str, *, status: int | None = None, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    @property
    def answered(self) -> bool:
        """Whether somebody is there."""
        return self.status is not None


class Refused(AuthorityError):
    """The CA said no: a status from 400 to 499, or None where it ended the TLS handshake."""

    reason = Reason.AUTHORITY_REFUSED

    def __init__(self, status: int | None, message: str) -> None:
        super().__init__(f"the CA refused ({status or 'TLS'}): {message}")
        self.status = status
        self._message = message

    def explained(self, remedy: str) -> Refused:
        """The same no, with what would help."""
        return Refused(self.status, f"{self._message}; {remedy}")


class BadAnswer(AuthorityError):
    """The CA, or somebody in its place, answered with something that must not be believed."""

    reason = Reason.BAD_CERTIFICATE

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class NotReady(AuthorityError):
    """The authority cannot be used yet."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
