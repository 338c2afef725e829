"""Which words say why something happened: one list for conditions, Events, the metric label and the docs."""

from enum import StrEnum


class Reason(StrEnum):
    """CamelCase words that users meet unchanged; docs/reasons.md explains each with its remedy."""

    # What went well.
    ISSUED = "Issued"
    RENEWED = "Renewed"
    ADOPTED = "Adopted"
    REPAIRED = "Repaired"
    FORMATS_WRITTEN = "FormatsWritten"
    REVOKED = "Revoked"
    RESTARTED = "Restarted"
    RELOADED = "Reloaded"
    ROLLED_OUT = "RolledOut"
    NOTHING_TO_RESTART = "NothingToRestart"
    DELIVERED = "Delivered"
    READY = "Ready"
    TOKEN_ISSUED = "TokenIssued"
    TOKEN_CANCELLED = "TokenCancelled"

    # Why a certificate is asked for.
    MISSING = "Missing"
    MALFORMED = "Malformed"
    KEY_MISMATCH = "KeyMismatch"
    KEY_CHANGED = "KeyChanged"
    CHAIN_BROKEN = "ChainBroken"
    ISSUER_CHANGED = "IssuerChanged"
    NAMES_CHANGED = "NamesChanged"
    DURATION_CHANGED = "DurationChanged"
    EXPIRED = "Expired"
    RENEWAL_DUE = "RenewalDue"
    SIBLING_RENEWED = "SiblingRenewed"
    RENEWAL_REQUESTED = "RenewalRequested"
    REVOCATION_REQUESTED = "RevocationRequested"
    ROOTS_CHANGED = "RootsChanged"
    FORMATS_CHANGED = "FormatsChanged"
    TOKEN_REQUESTED = "TokenRequested"
    AUTHORITY_RECOVERED = "AuthorityRecovered"

    # Why nothing can be done until somebody changes something.
    INVALID_SPEC = "InvalidSpec"
    CONFLICT = "Conflict"
    IMMUTABLE = "Immutable"
    NAME_DENIED = "NameDenied"
    AUTHORITY_NOT_FOUND = "AuthorityNotFound"
    AUTHORITY_NOT_READY = "AuthorityNotReady"
    TOKEN_EXPIRED = "TokenExpired"

    # What went wrong in an attempt.
    AUTHORITY_UNREACHABLE = "AuthorityUnreachable"
    AUTHORITY_REFUSED = "AuthorityRefused"
    BAD_CERTIFICATE = "BadCertificate"
    SECRET_NOT_WRITTEN = "SecretNotWritten"
    NOT_REVOKED = "NotRevoked"
    RENEW_BEFORE_IGNORED = "RenewBeforeIgnored"
    DURATION_SHORTENED = "DurationShortened"
    OUTLIVES_ISSUER = "OutlivesIssuer"
    TOKEN_NOT_CANCELLED = "TokenNotCancelled"

    # The state of a rollout.
    RESTART_PENDING = "RestartPending"
    RESTARTING = "Restarting"
    RESTART_FAILED = "RestartFailed"
    RESTART_DELAYED = "RestartDelayed"
    WINDOW_MISSED = "WindowMissed"

    # What servers show.
    SERVING = "Serving"
    SERVING_OTHER = "ServingOther"
    NOT_SERVING = "NotServing"
    SERVING_UNKNOWN = "ServingUnknown"

    # The state of hooks.
    HOOK_PENDING = "HookPending"
    HOOK_FAILING = "HookFailing"
    HOOK_DENIED = "HookDenied"

    # Why a CertAuthority is not ready.
    FINGERPRINT_MISMATCH = "FingerprintMismatch"
    HOST_NOT_IN_CERTIFICATE = "HostNotInCertificate"
    CERTIFICATE_NOT_TRUSTED = "CertificateNotTrusted"
    PROVISIONER_NOT_FOUND = "ProvisionerNotFound"
    CLOCK_SKEW = "ClockSkew"
    CLOCK_IN_SYNC = "ClockInSync"
    PASSWORD_WRONG = "PasswordWrong"
    PASSWORD_SECRET_MISSING = "PasswordSecretMissing"
