"""What can the API server answer that a caller must tell apart?

ClusterError
 ├─ NotFound      404: the object is gone
 ├─ Conflict      409: somebody wrote in between, look again
 ├─ Rejected      any other 4xx: the request itself is wrong, the message says why
 │   └─ Forbidden 403: the account has no right to it
 └─ Unavailable   5xx, 429, timeouts, cut connections: try again
"""


class ClusterError(Exception):
    """A request to the API server that did not do what was asked."""


class NotFound(ClusterError):
    """404."""


class Conflict(ClusterError):
    """409: the object changed, exists already, or is another one of the same name."""


class Rejected(ClusterError):
    """A 4xx that will not go away by itself."""


class Forbidden(Rejected):
    """403."""


class Unavailable(ClusterError):
    """Nothing is known of the outcome."""
