r"""What vouches for a plugin's files: a lock file beside them, and a signature in them.

`plugins.lock` in a folder of plugins is JSON: `{"version": 1, "plugins": {"id version": {"folder",
"hash"}}}`. What it lists has that hash or is refused. A signature is Ed25519 (RFC 8032) over the
text `dwkernel plugin 1\n` and the hash, in base64 in the file `plugin.sig`; the manifest is among
the files that the hash is over, and so are id and version.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.plugins.tree import SIGNATURE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dwkernel.plugins.discovery import Found

__all__ = ["LOCK_NAME", "locked_hash", "record", "sign", "signer", "verify"]

LOCK_NAME = "plugins.lock"
_CONTEXT = b"dwkernel plugin 1\n"
_LOCK_BYTES_MAX = 16 << 20
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64


def verify(
    found: Found, tree_hash: str, *, require_hash: bool = False, keys: Iterable[str] = ()
) -> None:
    """Hold files to what vouches for them.

    Args:
        found: the plugin.
        tree_hash: of its files, as they will run.
        require_hash: refuse what no lock file lists.
        keys: public keys in base64; if there are any, one of them has to have signed.

    Raises:
        Corrupt: `plugin.hash`
        Denied: `plugin.signature`

    """
    assert found.home is not None  # noqa: S101 - the kernel's own need no vouching
    name = f"{found.id} {found.manifest.version}"
    locked = locked_hash(found)
    if locked is None and require_hash:
        text = f"{name} is not in {found.home.parent / LOCK_NAME}, and hashes are required"
        raise errors.new("plugin.hash", text, id=found.id)
    if locked is not None and locked != tree_hash:
        text = f"the files of {name} have the hash {tree_hash}, and {LOCK_NAME} says {locked}"
        raise errors.new("plugin.hash", text, id=found.id, found=tree_hash, expected=locked)
    trusted = list(keys)
    if trusted and signer(found.home, tree_hash, trusted) is None:
        raise errors.new("plugin.signature", f"nobody who is trusted signed {name}", id=found.id)


def locked_hash(found: Found) -> str | None:
    """Return what the lock file beside a plugin says of it; None if it says nothing."""
    assert found.home is not None  # noqa: S101 - as above
    entry = _lock(found.home.parent)["plugins"].get(f"{found.id} {found.manifest.version}")
    if not isinstance(entry, dict) or entry.get("folder") != found.home.name:
        return None
    return str(entry.get("hash"))


def record(folder: Path, found: Found, tree_hash: str) -> None:
    """Write a plugin's hash into the lock file of its folder, whole or not at all.

    Whoever calls has the folder to itself, as installing does: what others add meanwhile is lost.
    """
    assert found.home is not None  # noqa: S101 - as above
    lock = _lock(folder)
    entry = {"folder": found.home.name, "hash": tree_hash}
    lock["plugins"][f"{found.id} {found.manifest.version}"] = entry
    text = json.dumps(lock, indent=1, sort_keys=True) + "\n"
    beside = folder / f".{LOCK_NAME}.{os.getpid()}"
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / LOCK_NAME)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _lock(folder: Path) -> dict[str, Any]:
    path = folder / LOCK_NAME
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_LOCK_BYTES_MAX))
    except FileNotFoundError:
        return {"version": 1, "plugins": {}}
    except (OSError, ValueError, RecursionError) as error:
        raise errors.new("plugin.hash", f"{path} can't be read: {error}", path=path) from error
    if (
        not isinstance(found, dict)
        or found.get("version") != 1
        or not isinstance(found.get("plugins"), dict)
    ):
        raise errors.new("plugin.hash", f"{path} is no lock file of version 1", path=path)
    return found


def signer(home: Path, tree_hash: str, keys: Iterable[str]) -> str | None:
    """Return which of the keys signed these files; None if none of them did.

    Raises:
        Denied: `plugin.signature`: a key is no key

    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - who signs pays for it
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - as above

    try:
        with (home / SIGNATURE_NAME).open("rb") as file:
            signature = base64.b64decode(file.read(200), validate=False)
    except (OSError, binascii.Error):
        return None
    if len(signature) != _SIGNATURE_BYTES:
        return None
    for key in keys:
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(_key(key)).verify(
                signature, _CONTEXT + tree_hash.encode()
            )
        except InvalidSignature:
            continue
        return key
    return None


def sign(home: Path, private_key: bytes) -> str:
    """Sign a plugin's files: write `plugin.sig` into its folder.

    Args:
        home: the folder with the manifest.
        private_key: 32 bytes, the seed of an Ed25519 key.

    Returns:
        The public key in base64, as `plugins.trusted_keys` lists it.

    Raises:
        Invalid: `plugin.load`: the folder can't be read
        Denied: `plugin.signature`: that is no key

    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - as above

    from dwkernel.plugins import tree  # noqa: PLC0415 - as above

    if len(private_key) != _KEY_BYTES:
        raise errors.new("plugin.signature", f"a private key has {_KEY_BYTES} bytes")
    key = ed25519.Ed25519PrivateKey.from_private_bytes(private_key)
    signature = key.sign(_CONTEXT + tree.look(home).hash.encode())
    (home / SIGNATURE_NAME).write_bytes(base64.b64encode(signature) + b"\n")
    public = key.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    return base64.b64encode(public).decode()


def _key(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise errors.new("plugin.signature", f"{text!r} in plugins.trusted_keys is no Ed25519 key")
    return key
