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
VERIFY = PREFIX + "verify"
FORMATS = PREFIX + "formats"
PKCS12_PASSWORD_SECRET = PREFIX + "pkcs12-password-secret"
PKCS12_PROFILE = PREFIX + "pkcs12-profile"
REVOKE = PREFIX + "revoke"
PING_URL = PREFIX + "ping-url"
RENEW_NOW = PREFIX + "renew-now"
REVOKE_NOW = PREFIX + "revoke-now"
TOKEN = PREFIX + "token"
TOKEN_LIFETIME = PREFIX + "token-lifetime"
TOKEN_NOW = PREFIX + "token-now"

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
        VERIFY,
        FORMATS,
        PKCS12_PASSWORD_SECRET,
        PKCS12_PROFILE,
        REVOKE,
        PING_URL,
        RENEW_NOW,
        REVOKE_NOW,
        TOKEN,
        TOKEN_LIFETIME,
        TOKEN_NOW,
    }
)

# On namespaces, and as a label on what they get.
ROOTS = PREFIX + "roots"

# On workloads, beside RESTART and RESTART_WINDOW.
RESTART_ORDER = PREFIX + "restart-order"
RESTART_CANARY = PREFIX + "restart-canary"

RELOAD_SIGNAL = PREFIX + "reload-signal"
RELOAD_CONTAINER = PREFIX + "reload-container"
RELOAD_COMMAND = PREFIX + "reload-command"

ON_WORKLOADS = frozenset(
    {RESTART, RESTART_WINDOW, RESTART_ORDER, RESTART_CANARY, RELOAD_SIGNAL, RELOAD_CONTAINER, RELOAD_COMMAND}
)

# On pod templates the operator marks the certificate that the workload runs; the name part is the Secret's name.
# A workload that reloads without a restart carries the mark itself, and so do pods whose files were hurried along.
MARK_PREFIX = "certificate.certrenewal.dev/"
