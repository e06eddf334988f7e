"""Users' secrets: encrypted before SQL sees them (AES-256-GCM), and read back only by the parts that use them."""

from __future__ import annotations

import hashlib
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.store.keys import server_secrets
from dispatch.store.upsert import insert_or
from schemas.errors import SettingsError, Unavailable

_KEY_BYTES = 32
#: The length that AES-GCM is made for.
_NONCE_BYTES = 12


class Vault:
    """Seals texts with one key, which is a file in the home and never in SQL: a copied database tells nothing."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    @classmethod
    def open(cls, home: Path) -> Vault:
        """Read `<home>/secret_key`, or make it. Replicas that share a database must share this file too.

        Raises Unavailable when the home can't be written, SettingsError when the file is no key.
        """
        path = home / "secret_key"
        key = read_or_create(path, secrets.token_hex(_KEY_BYTES))
        try:
            return cls(bytes.fromhex(key))
        except ValueError:
            raise SettingsError(
                f"{path} holds no key (64 hexadecimal digits); restore the file, or remove it and set every secret anew"
            ) from None

    def seal(self, text: str, *, label: str) -> bytes:
        """Encrypt; `label` says whose it is, and must be given again to open it."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode(), label.encode())

    def unseal(self, sealed: bytes, *, label: str) -> str:
        """Decrypt. Raises Unavailable when it was sealed with another key or under another label."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], label.encode()).decode()
        except InvalidTag:
            raise Unavailable(
                "a stored secret was sealed with another key; give this server the same secret_key file as the one "
                "that stored it, or set the secret anew"
            ) from None


async def put_secret(connection: AsyncConnection, vault: Vault, *, app: str, name: str, text: str) -> bool:
    """Store an app's secret; True when it is new."""
    sealed = vault.seal(text, label=_label(app, name))
    row = {"name": _row_name(app, name), "value": sealed, "created_at": datetime.now(UTC)}
    new = await connection.scalar(select(server_secrets.c.name).where(server_secrets.c.name == row["name"])) is None
    await connection.execute(
        insert_or(connection, server_secrets)
        .values(row)
        .on_conflict_do_update(index_elements=["name"], set_={"value": row["value"], "created_at": row["created_at"]})
    )
    return new


async def read_secret(connection: AsyncConnection, vault: Vault, *, app: str, name: str) -> str | None:
    """Read an app's secret; None when there is none by this name."""
    query = select(server_secrets.c.value).where(server_secrets.c.name == _row_name(app, name))
    sealed = await connection.scalar(query)
    return None if sealed is None else vault.unseal(bytes(sealed), label=_label(app, name))


def read_or_create(path: Path, text: str) -> str:
    """Read a file that only its owner may read, or create it with this text; of several at once, one creates it.

    Raises Unavailable when the folder can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        draft.touch(mode=0o600, exist_ok=False)
        try:
            draft.write_text(text + "\n")
            # A hard link appears whole or not at all, and never replaces what another process made.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        return path.read_text().strip()
    except OSError as error:
        raise Unavailable(
            f"{path} can't be read or written ({error.strerror}); make the folder writable, or set FLO_HOME to another"
        ) from error


def _label(app: str, name: str) -> str:
    return f"app-secret:{app}/{name}"


def _row_name(app: str, name: str) -> str:
    # Hashed, as both names together may be longer than the column.
    return "app-secret:" + hashlib.sha256(_label(app, name).encode()).hexdigest()
