"""Who takes a new certificate in without a restart: how is it told, where are its files, and who cannot?

The kubelet renews the files of a mounted Secret under a running container. It never renews environment variables and
subPath mounts, and nothing runs an init container again: what reads a Secret in one of these ways needs a restart.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from certrenewal.domain import annotation

LONGEST_COMMAND = 2000  # it travels in a URL

_SIGNAL = re.compile(r"(?!SIG$)(?:SIG)?([A-Z0-9][A-Z0-9+-]{0,11})")
_CONTAINER = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """What is run in a workload's containers once the new files are there."""

    command: tuple[str, ...]
    container: str | None = None  # None: in each that mounts the Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A directory of a running container that the kubelet keeps as the Secret is."""

    secret: str
    container: str
    path: str
    items: tuple[tuple[str, str], ...] = ()  # keys and their files, where not all are mounted under their own names

    def file(self, key: str) -> str | None:
        """Where the container finds one key of the Secret."""
        name = dict(self.items).get(key) if self.items else key
        return posixpath.join(self.path, name) if name else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAtStart:
    """A use of a Secret that only a restart renews."""

    secret: str
    key: str | None  # None: of every key, as far as can be told
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumption:
    """How the pods of a workload come by the data of their Secrets."""

    selector: str = ""  # of its pods; empty: it has none
    containers: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    at_start: tuple[ReadAtStart, ...] = ()

    def mounts_of(self, secret: str) -> tuple[Mount, ...]:
        """Where running containers have files of this Secret."""
        return tuple(mount for mount in self.mounts if mount.secret == secret)

    def needs_restart(self, secret: str, keys: frozenset[str]) -> str | None:
        """Why new values under these keys of the Secret need a restart; None where the kubelet brings them in."""
        uses = (use for use in self.at_start if use.secret == secret and (use.key is None or use.key in keys))
        return next((use.words for use in uses), None)

    def chosen(self, reload: Reload, secrets: Collection[str]) -> tuple[str, ...]:
        """The containers that are told of new files: the named one, those that mount them, else the first."""
        if reload.container is not None:
            return (reload.container,)
        mounting = {mount.container for mount in self.mounts if mount.secret in secrets}
        return tuple(name for name in self.containers if name in mounting) or self.containers[:1]


# -- annotations -------------------------------------------------------------------------------------------------------


def parse_reload(own: Mapping[str, str], pod: Mapping[str, Any]) -> Reload:
    """Read the annotations of a workload that is told by a signal or command; ValueError says what would be right."""
    container = own.get(annotation.RELOAD_CONTAINER)
    if container is not None:
        names = [str(found.get("name")) for found in _running(pod)]
        if not _CONTAINER.fullmatch(container) or (names and container not in names):
            raise _unreadable(annotation.RELOAD_CONTAINER, container, f"write one of {', '.join(names)}")
    signal = _signal(own.get(annotation.RELOAD_SIGNAL, "HUP"))
    text = own.get(annotation.RELOAD_COMMAND)
    if text is not None:
        return Reload(command=_command(text), container=container)
    for field in ("shareProcessNamespace", "hostPID"):
        if pod.get(field):
            raise ValueError(
                f"its pods have {field}: process 1 is none of their own, so that no signal can be sent to it; "
                f"write what to run instead as annotation {annotation.RELOAD_COMMAND}"
            )
    return Reload(command=("kill", "-s", signal, "1"), container=container)


def _signal(text: str) -> str:
    if not (match := _SIGNAL.fullmatch(text)):
        raise _unreadable(annotation.RELOAD_SIGNAL, text, "write the name of a signal such as HUP or USR1")
    return match[1]


def _command(text: str) -> tuple[str, ...]:
    remedy = 'write a command such as "nginx -s reload", or ["nginx", "-s", "reload"]'
    if len(text) > LONGEST_COMMAND:
        remedy = f"write at most {LONGEST_COMMAND} characters, and the rest into a script of the container's"
        raise _unreadable(annotation.RELOAD_COMMAND, text, remedy)
    try:
        words = json.loads(text) if text.lstrip().startswith("[") else shlex.split(text)
    except (ValueError, RecursionError):
        raise _unreadable(annotation.RELOAD_COMMAND, text, remedy) from None
    if not words or not words[0] or not all(isinstance(word, str) for word in words):
        raise _unreadable(annotation.RELOAD_COMMAND, text, remedy)
    return tuple(words)


def _unreadable(key: str, text: str, remedy: str) -> ValueError:
    return ValueError(f"annotation {key}: {text[:200]!r} cannot be read: {remedy}")


# -- the pod template --------------------------------------------------------------------------------------------------


def parse_consumption(selector: Mapping[str, Any], pod: Mapping[str, Any]) -> Consumption:
    """How the pods of a template come by the data of their Secrets."""
    volumes = {str(volume.get("name")): list(_sources(volume)) for volume in pod.get("volumes") or ()}
    running = list(_running(pod))
    finite = [found for found in pod.get("initContainers") or () if found not in running]
    mounts = [mount for container in running for mount in _mounts(container, volumes)]
    at_start = [use for container in [*running, *finite] for use in _at_start(container, volumes)]
    mounted = {mount.secret for mount in mounts}
    at_start += [
        ReadAtStart(secret=secret, key=None, words=f"only init container {container.get('name')} mounts {secret}")
        for container in finite
        for secret in sorted({mount.secret for mount in _mounts(container, volumes)} - mounted)
    ]
    return Consumption(
        selector=selector_text(selector),
        containers=tuple(str(container.get("name")) for container in running),
        mounts=tuple(mounts),
        at_start=tuple(at_start),
    )


def selector_text(selector: Mapping[str, Any]) -> str:
    """A label selector as a query takes it; empty where it selects by nothing."""
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        key, values = expression["key"], ",".join(expression.get("values") or ())
        words = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}
        parts.append(words.get(expression["operator"], f"!{key}"))
    return ",".join(parts)


def _running(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The containers that run as long as the pod does: sidecars are init containers that are always restarted."""
    yield from pod.get("containers") or ()
    for container in pod.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            yield container


_Source = tuple[str, tuple[tuple[str, str], ...]]


def _sources(volume: Mapping[str, Any]) -> Iterator[_Source]:
    """The Secrets in a volume, with the files of their keys where these are named."""
    if name := (volume.get("secret") or {}).get("secretName"):
        yield name, _items(volume["secret"])
    for source in (volume.get("projected") or {}).get("sources") or ():
        if name := (source.get("secret") or {}).get("name"):
            yield name, _items(source["secret"])


def _items(source: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((item["key"], item["path"]) for item in source.get("items") or ())


def _mounts(container: Mapping[str, Any], volumes: Mapping[str, list[_Source]]) -> Iterator[Mount]:
    name = str(container.get("name"))
    for mount in container.get("volumeMounts") or ():
        if not _is_part(mount):
            for secret, items in volumes.get(mount.get("name"), ()):
                yield Mount(secret=secret, container=name, path=mount.get("mountPath", ""), items=items)


def _is_part(mount: Mapping[str, Any]) -> bool:
    return bool(mount.get("subPath") or mount.get("subPathExpr"))


def _at_start(container: Mapping[str, Any], volumes: Mapping[str, list[_Source]]) -> Iterator[ReadAtStart]:
    name = f"container {container.get('name')}"
    for variable in container.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("secretKeyRef") or {}
        if secret := reference.get("name"):
            words = f"{name} has {secret} in its environment"
            yield ReadAtStart(secret=secret, key=reference.get("key"), words=words)
    for source in container.get("envFrom") or ():
        if secret := (source.get("secretRef") or {}).get("name"):
            yield ReadAtStart(secret=secret, key=None, words=f"{name} has {secret} in its environment")
    for mount in filter(_is_part, container.get("volumeMounts") or ()):
        for secret, items in volumes.get(mount.get("name"), ()):
            words = f"{name} mounts {secret} by subPath"
            yield ReadAtStart(secret=secret, key=_key_of(mount.get("subPath"), items), words=words)


def _key_of(path: str | None, items: tuple[tuple[str, str], ...]) -> str | None:
    """The key whose file is mounted, None where it cannot be told."""
    if path is None:
        return None
    return next((key for key, file in items if file == path), None) if items else path
