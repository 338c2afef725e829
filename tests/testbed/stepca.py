"""Where do the tests get a certificate authority: a real step-ca that can be edited, restarted, frozen and read.

Its port, keys and database outlive a restart. Its JSON log is the record of every call that anybody made.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import ssl
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.testbed import tls, tools
from tests.testbed.processes import Process, free_port

CLAIMS = {"minTLSCertDuration": "1s", "defaultTLSCertDuration": "24h", "maxTLSCertDuration": "87600h"}
_START = 20
_AGENT = "testbed"
_SERVING = "Serving HTTPS on"
_REFUSED = "error reloading"


@dataclass(frozen=True, slots=True)
class Issuer:
    """The files of a root and of an intermediate under it."""

    root_file: Path
    root_key: Path
    intermediate_file: Path
    intermediate_key: Path


class StepCA:
    """One CA with everything under ``folder``; also a context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "Testbed",
        claims: Mapping[str, Any] | None = None,
        backdate: str | None = None,
        dns: Sequence[str] = tls.LOOPBACK,
        provisioner: str = "admin",
        detached: bool = False,
    ) -> None:
        """Make its keys and ca.json; ``claims`` are laid over lifetimes from 1 s to 10 years. It does not run yet."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.name = name
        self.provisioner = provisioner
        self.password = secrets.token_hex(16)
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.config_file = folder / "config" / "ca.json"
        self.root_file = folder / "certs" / "root_ca.crt"
        self._password_file = self._write_secret("password", self.password)
        self._initialise(dns)
        self._set_lifetimes({**CLAIMS, **(claims or {})}, backdate)
        self.root_pem = self.root_file.read_text()
        self.fingerprint = self.step("certificate", "fingerprint", str(self.root_file)).strip()
        self.process = Process(
            f"step-ca {name}",
            [tools.path("step-ca"), str(self.config_file), f"--password-file={self._password_file}"],
            log=folder / "step-ca.log",
            environment=self._environment(),
            detached=detached,
        )

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def start(self) -> None:
        """Start and return when it answers."""
        self.process.start()
        try:
            self.process.until(self.healthy, _START, f"CA {self.name} answers")
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it politely."""
        self.process.stop()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()

    def restart(self) -> None:
        """Stop it and start it on the same port and database."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections are accepted, nothing is answered."""
        self.process.pause()

    def resume(self) -> None:
        """Let it answer again after ``pause``."""
        self.process.resume()

    def reload(self) -> None:
        """Have it read ca.json again without a pause; returns when the new configuration serves."""
        seen = self.process.log_size()

        def reloaded() -> bool:
            said = self.process.log_text(seen)
            if _REFUSED in said:
                raise RuntimeError(f"CA {self.name} keeps its old configuration: {said}")
            return _SERVING in said and self.healthy()

        self.process.signal(signal.SIGHUP)
        self.process.until(reloaded, _START, f"CA {self.name} reloads")

    def healthy(self) -> bool:
        """Whether /health answers over TLS that its root vouches for."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=2, context=ssl.create_default_context(cadata=self._every_root())
        )
        try:
            connection.request("GET", "/health", headers={"User-Agent": _AGENT})
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def step(self, *arguments: str, home: Path | None = None) -> str:
        """What the step CLI prints, run with this CA's own STEPPATH, or with another."""
        outcome = subprocess.run(
            [tools.path("step"), *arguments],
            stdin=subprocess.DEVNULL,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env=self._environment(home),
        )
        if outcome.returncode:
            raise RuntimeError(f"step {' '.join(arguments)} failed: {outcome.stderr.strip()}")
        return outcome.stdout

    def certificate(
        self, name: str, sans: Sequence[str] = (), not_after: str = "24h", *options: str
    ) -> tuple[str, str]:
        """Chain and key as ``step ca certificate`` leaves them; ``options`` such as ``--kty=RSA`` are passed on."""
        stem = self.folder / f"issued-{secrets.token_hex(4)}"
        names = [f"--san={san}" for san in sans]
        self.step(
            "ca", "certificate", name, f"{stem}.crt", f"{stem}.key", f"--not-after={not_after}",
            *names, *self._online(), *options,
        )  # fmt: skip
        return Path(f"{stem}.crt").read_text(), Path(f"{stem}.key").read_text()

    def certificate_by_token(self, name: str, token: str, *options: str) -> tuple[str, str]:
        """Chain and key as ``step ca certificate --token`` leaves them where nothing else is known of this CA."""
        stranger = self.folder / f"stranger-{secrets.token_hex(4)}"
        stranger.mkdir()
        crt, key = stranger / "crt", stranger / "key"
        self.step("ca", "certificate", name, str(crt), str(key), f"--token={token}", *options, home=stranger)
        return crt.read_text(), key.read_text()

    def revoke(self, serial: str) -> None:
        """Revoke by serial (decimal, or hex with 0x), as ``step ca revoke`` does with a provisioner's token."""
        token = self.step("ca", "token", serial, "--revoke", *self._online()).strip()
        self.step("ca", "revoke", serial, f"--token={token}", *self._reach())

    def add_provisioner(self, name: str, *options: str, kind: str = "JWK", password: str | None = None) -> str:
        """Add a provisioner and reload; the password that opens its key."""
        password = password or self.password
        secret = self._write_secret(f"provisioner-{name}", password)
        self.step(
            "ca", "provisioner", "add", name, f"--type={kind}", *(["--create"] if kind == "JWK" else []),
            f"--password-file={secret}", f"--ca-config={self.config_file}", *options,
        )  # fmt: skip
        if self.process.running:
            self.reload()
        return password

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change ca.json in place and, where the CA runs, have it read again (``db`` alone needs a restart)."""
        config = json.loads(self.config_file.read_text())
        change(config)
        self.config_file.write_text(json.dumps(config, indent=1))
        if self.process.running:
            self.reload()

    def edit_provisioner(self, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        """As ``edit``, for one provisioner's entry."""
        self.edit(lambda config: change(_provisioner(config, name)))

    def make_issuer(self, name: str, *, root: Issuer | None = None) -> Issuer:
        """A new intermediate under a new root, or under that of ``root``; the CA does not use it yet."""
        stem = self.folder / "certs" / name
        password = f"--password-file={self._password_file}"
        if root is None:
            self.step(
                "certificate", "create", f"{name} Root", f"{stem}-root.crt", f"{stem}-root.key",
                "--profile=root-ca", password,
            )  # fmt: skip
        root_file, root_key = (
            (root.root_file, root.root_key) if root else (Path(f"{stem}-root.crt"), Path(f"{stem}-root.key"))
        )
        self.step(
            "certificate", "create", f"{name} Intermediate", f"{stem}.crt", f"{stem}.key",
            "--profile=intermediate-ca", f"--ca={root_file}", f"--ca-key={root_key}",
            f"--ca-password-file={self._password_file}", password,
        )  # fmt: skip
        return Issuer(root_file, root_key, Path(f"{stem}.crt"), Path(f"{stem}.key"))

    def grow_old(self) -> None:
        """Give it a root and an intermediate that are an hour old, with the same keys, and restart it."""
        first = self.first_issuer
        password = f"--password-file={self._password_file}"
        by_root = (f"--ca={first.root_file}", f"--ca-key={first.root_key}", f"--ca-password-file={self._password_file}")
        for file, key, options in (
            (first.root_file, first.root_key, ("--profile=root-ca",)),
            (first.intermediate_file, first.intermediate_key, ("--profile=intermediate-ca", *by_root)),
        ):
            self.step(
                "certificate", "create", f"Old {self.name} {file.stem}", str(file), "--force", f"--key={key}", password,
                "--not-before=-1h", "--not-after=24h", *options,
            )  # fmt: skip
        self.root_pem = self.root_file.read_text()
        self.fingerprint = self.step("certificate", "fingerprint", str(self.root_file)).strip()
        self.restart()

    @property
    def first_issuer(self) -> Issuer:
        """Root and intermediate that the CA was made with."""
        certificates, keys = self.folder / "certs", self.folder / "secrets"
        return Issuer(
            certificates / "root_ca.crt",
            keys / "root_ca_key",
            certificates / "intermediate_ca.crt",
            keys / "intermediate_ca_key",
        )

    def issue_by(self, issuer: Issuer, *, roots: Sequence[Issuer], federated: Sequence[Issuer] = ()) -> None:
        """Sign by ``issuer``, name ``roots`` as its own and ``federated`` as those of its federation."""

        def change(config: dict[str, Any]) -> None:
            config["root"] = [str(named.root_file) for named in roots]
            config["federatedRoots"] = [str(named.root_file) for named in federated]
            config["crt"], config["key"] = str(issuer.intermediate_file), str(issuer.intermediate_key)

        self.edit(change)

    def calls(self) -> list[dict[str, Any]]:
        """One record per request served: method, path, status, user-agent; serial, provisioner… where they apply."""
        lines = self.process.log_text().splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [record for record in records if "path" in record and record["user-agent"] != _AGENT]

    def count(self, path: str, status: int | None = None) -> int:
        """How often ``path`` (with or without ``/1.0``, any query) was called, or answered with ``status``."""
        return sum(_route(call) == path and status in (None, call["status"]) for call in self.calls())

    def _every_root(self) -> str:
        return "".join(file.read_text() for file in (self.folder / "certs").glob("*root*.crt"))

    def _initialise(self, dns: Sequence[str]) -> None:
        self.step(
            "ca", "init", f"--name={self.name}", f"--provisioner={self.provisioner}", f"--dns={','.join(dns)}",
            f"--address=127.0.0.1:{self.port}", "--deployment-type=standalone",
            f"--password-file={self._password_file}", f"--provisioner-password-file={self._password_file}",
        )  # fmt: skip

    def _set_lifetimes(self, claims: Mapping[str, Any], backdate: str | None) -> None:
        def change(config: dict[str, Any]) -> None:
            config["logger"] = {"format": "json"}
            config["authority"]["claims"] = dict(claims)
            if backdate is not None:
                config["authority"]["backdate"] = backdate

        config = json.loads(self.config_file.read_text())
        change(config)
        self.config_file.write_text(json.dumps(config, indent=1))

    def _reach(self) -> list[str]:
        return [f"--ca-url={self.url}", f"--root={self.root_file}"]

    def _online(self) -> list[str]:
        return [
            *self._reach(),
            f"--provisioner={self.provisioner}",
            f"--provisioner-password-file={self._password_file}",
        ]

    def _write_secret(self, name: str, content: str) -> Path:
        path = self.folder / f"{name}.txt"
        path.touch(mode=0o600)
        path.write_text(content)
        return path

    def _environment(self, home: Path | None = None) -> dict[str, str]:
        folder = str(home or self.folder)
        return {**os.environ, "STEPPATH": folder, "HOME": folder}


def _route(call: dict[str, Any]) -> str:
    return str(call["path"]).partition("?")[0].removeprefix("/1.0")


def _provisioner(config: dict[str, Any], name: str) -> dict[str, Any]:
    for found in config["authority"]["provisioners"]:
        if found["name"] == name:
            entry: dict[str, Any] = found
            return entry
    raise LookupError(f"ca.json has no provisioner {name!r}")
