"""What can go wrong with an authority?

AuthorityError
 ├─ Unreachable   no answer, or one that says "later": try again, nobody needs to change anything
 ├─ Refused       a clear no, with the CA's own words: somebody must change something
 ├─ BadAnswer     an answer that must not be used: a foreign key, other names, an expired certificate, HTML
 └─ NotReady      the authority cannot be used yet, with the reason that its condition shows
"""

from __future__ import annotations

from datetime import timedelta

from certrenewal.domain.reasons import Reason


class AuthorityError(Exception):
    """Anything that keeps an authority from doing what it was asked; the message is for users."""

    reason: Reason = Reason.AUTHORITY_UNREACHABLE
    retry_after: timedelta | None = None


class Unreachable(AuthorityError):
    """The CA did not answer, or (``answered``) said that it cannot now."""

    def __init__(self, message: str, *, answered: bool = False, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.answered = answered
        self.retry_after = retry_after


class Refused(AuthorityError):
    """The CA said no: an HTTP status from 400 to 499."""

    reason = Reason.AUTHORITY_REFUSED

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the CA refused ({status}): {message}")
        self.status = status


class BadAnswer(AuthorityError):
    """The CA answered with something that must never reach a Secret."""

    reason = Reason.BAD_CERTIFICATE


class NotReady(AuthorityError):
    """The authority cannot be used yet."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
