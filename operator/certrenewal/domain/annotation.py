"""Which annotations does a user write: the keys, here and nowhere else."""

PREFIX = "certrenewal.dev/"

RENEW = PREFIX + "renew"
AUTHORITY = PREFIX + "authority"
NAMES = PREFIX + "names"
DURATION = PREFIX + "duration"
RENEW_BEFORE = PREFIX + "renew-before"
KEY = PREFIX + "key"
KEY_ROTATION = PREFIX + "key-rotation"
DATA_KEYS = PREFIX + "data-keys"
RESTART = PREFIX + "restart"
RESTART_WINDOW = PREFIX + "restart-window"
FORMATS = PREFIX + "formats"
PKCS12_PASSWORD_SECRET = PREFIX + "pkcs12-password-secret"
PKCS12_PROFILE = PREFIX + "pkcs12-profile"
RENEW_NOW = PREFIX + "renew-now"
TOKEN = PREFIX + "token"
TOKEN_LIFETIME = PREFIX + "token-lifetime"
TOKEN_NOW = PREFIX + "token-now"

# Read by later releases: refused rather than ignored, so that nobody waits for a file that never comes.
REVOKE = PREFIX + "revoke"
PING_URL = PREFIX + "ping-url"

ON_SECRETS = frozenset(
    {
        RENEW,
        AUTHORITY,
        NAMES,
        DURATION,
        RENEW_BEFORE,
        KEY,
        KEY_ROTATION,
        DATA_KEYS,
        RESTART,
        RESTART_WINDOW,
        FORMATS,
        PKCS12_PASSWORD_SECRET,
        PKCS12_PROFILE,
        RENEW_NOW,
        TOKEN,
        TOKEN_LIFETIME,
        TOKEN_NOW,
    }
)
UNSUPPORTED = frozenset({REVOKE, PING_URL})

# On namespaces, and as a label on what they get.
ROOTS = PREFIX + "roots"

# On workloads, beside RESTART and RESTART_WINDOW.
RESTART_ORDER = PREFIX + "restart-order"
RESTART_CANARY = PREFIX + "restart-canary"

ON_WORKLOADS = frozenset({RESTART, RESTART_WINDOW, RESTART_ORDER, RESTART_CANARY})

# On pod templates the operator marks the certificate that the workload runs; the name part is the Secret's name.
MARK_PREFIX = "certificate.certrenewal.dev/"
