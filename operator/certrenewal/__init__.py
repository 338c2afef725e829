"""certrenewal keeps the certificates in annotated Kubernetes Secrets fresh through step-ca."""

from importlib.metadata import version

__version__ = version("certrenewal")
