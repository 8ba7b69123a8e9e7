"""A signed apt repository made of .deb files: suite `stable`, component `main`, its key beside it as key.asc."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from .tools import need, run

ARCHITECTURES = ("amd64", "arm64")
KEY_OWNER = "power rehearsal (throw-away key of this machine)"


class Signer:
    """A GPG key of our own, made at the first use and kept in `key_file` (0600)."""

    def __init__(self, key_file: Path) -> None:
        need("gpg", "gpg", "gpg-agent")
        self._key_file = key_file
        # a short path of its own: the agent's socket lives there, and its agent ends with us
        self._home = tempfile.mkdtemp(prefix="gpg-")
        if key_file.is_file():
            self._gpg("--import", str(key_file))
        else:
            self._gpg("--passphrase", "", "--quick-generate-key", KEY_OWNER, "ed25519", "sign", "never")
            key_file.parent.mkdir(parents=True, exist_ok=True)
            key_file.touch(mode=0o600)
            key_file.write_text(self._gpg("--armor", "--export-secret-keys"), encoding="ascii")
        listing = self._gpg("--with-colons", "--list-keys").splitlines()
        self.fingerprint = next(line.split(":")[9] for line in listing if line.startswith("fpr:"))

    def __enter__(self) -> Signer:
        return self

    def __exit__(self, *_: object) -> None:
        run(["gpgconf", "--homedir", self._home, "--kill", "all"])
        shutil.rmtree(self._home, ignore_errors=True)

    def _gpg(self, *words: str) -> str:
        return run(["gpg", "--homedir", self._home, "--batch", "--yes", "--quiet", *words])

    def public_key(self) -> str:
        """Give the public key, armoured."""
        return self._gpg("--armor", "--export")

    def sign(self, release: Path) -> None:
        """Write InRelease and Release.gpg beside Release."""
        self._gpg("--clearsign", "--output", str(release.with_name("InRelease")), str(release))
        self._gpg("--armor", "--detach-sign", "--output", str(release.with_name("Release.gpg")), str(release))


def build(folder: Path, debs: Iterable[Path], signer: Signer) -> None:
    """Make or refresh the repository in `folder`; files that would be the same are left as they are."""
    pool = folder / "pool"
    pool.mkdir(parents=True, exist_ok=True)
    wanted = {deb.name: deb for deb in debs}
    for old in pool.iterdir():
        if old.name not in wanted:
            old.unlink()
    for name, deb in wanted.items():
        write(pool / name, deb.read_bytes())
    stanzas = [(_field(pool / name, "Architecture"), _stanza(pool / name, folder)) for name in sorted(wanted)]
    suite = folder / "dists/stable"
    sums = []
    for arch in ARCHITECTURES:
        listing = "\n".join(stanza for of, stanza in stanzas if of in (arch, "all")).encode()
        for name, data in (("Packages", listing), ("Packages.gz", gzip.compress(listing, mtime=0))):
            path = f"main/binary-{arch}/{name}"
            write(suite / path, data)
            sums.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {path}")
    write(folder / "key.asc", signer.public_key().encode())
    about = ["Origin: power rehearsal", "Suite: stable", "Codename: stable", "Components: main"]
    about += [f"Architectures: {' '.join(ARCHITECTURES)}", "SHA256:", *sums]
    release = suite / "Release"
    kept = release.read_text(encoding="utf-8").splitlines()[1:] if release.is_file() else []
    if kept != about or not release.with_name("InRelease").is_file():
        date = time.strftime("Date: %a, %d %b %Y %H:%M:%S UTC", time.gmtime())
        release.write_text("\n".join([date, *about]) + "\n", encoding="utf-8")
        signer.sign(release)


def _field(deb: Path, name: str) -> str:
    return run(["dpkg-deb", "-f", deb, name]).strip()


def _stanza(deb: Path, folder: Path) -> str:
    data = deb.read_bytes()
    control = run(["dpkg-deb", "-f", deb]).strip()
    digest = hashlib.sha256(data).hexdigest()
    return f"{control}\nFilename: {deb.relative_to(folder)}\nSize: {len(data)}\nSHA256: {digest}\n"


def write(path: Path, data: bytes) -> None:
    """Write a file unless it holds that already."""
    if not path.is_file() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
