"""The key pairs that sign run tokens: one row in SQL, sealed, rotated; the public halves are a JWKS (RFC 7517)."""

from __future__ import annotations

import hashlib
import time
from base64 import urlsafe_b64encode
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

import jwt
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from dispatch.run_tokens import Signer
from dispatch.store.keys import server_secrets
from dispatch.store.session import Store
from dispatch.store.upsert import insert_or
from dispatch.store.vault import Vault
from schemas.json import JSONObject, dumps, loads

#: Age at which a key is replaced. The one before it is listed until the next change, so that its tokens stay good.
LASTS = timedelta(days=30)
#: How long a process may go on with the keys that it has read.
REMEMBERED = timedelta(minutes=1)

_ROW = "execution-keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """One pair; `kid` is its JWK thumbprint (RFC 7638)."""

    kid: str
    private_pem: str
    made_at: float

    @classmethod
    def make(cls, now: datetime) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        text = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()).decode()
        return cls(kid=_thumbprint(_jwk(key)), private_pem=text, made_at=now.timestamp())

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        return cast(ec.EllipticCurvePrivateKey, pem.load_pem_private_key(self.private_pem.encode(), None))

    def public_jwk(self) -> JSONObject:
        return {**_jwk(self.private), "kid": self.kid, "use": "sig", "alg": "ES256"}


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The pair that signs, and the one before it."""

    current: KeyPair
    previous: KeyPair | None = None

    def rotated(self, now: datetime) -> KeyRing:
        return KeyRing(KeyPair.make(now), self.current)

    def is_due(self, now: datetime) -> bool:
        return now.timestamp() - self.current.made_at > LASTS.total_seconds()

    def jwks(self) -> JSONObject:
        pairs = [pair for pair in (self.current, self.previous) if pair is not None]
        return {"keys": [pair.public_jwk() for pair in pairs]}


class RunKeys:
    """One process's view of the ring; the first process to look makes it, and whoever finds it due rotates it."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._known: tuple[float, KeyRing, Signer] | None = None

    async def ring(self) -> KeyRing:
        """Raises Unavailable when the keys were sealed with another `secret_key` file than this process has."""
        return (await self._look())[1]

    async def signer(self) -> Signer:
        return (await self._look())[2]

    async def public_key(self, kid: str | None) -> jwt.PyJWK | None:
        """Find the public half of a key by its id."""
        ring = await self.ring()
        for pair in (ring.current, ring.previous):
            if pair is not None and pair.kid == kid:
                return jwt.PyJWK(pair.public_jwk())
        return None

    async def rotate(self) -> KeyRing:
        """Begin to sign with a new pair."""
        self._known = None
        async with self._store.write() as connection:
            sealed, ring = await self._read(connection)
            return await self._replace(connection, sealed, ring.rotated(datetime.now(UTC)))

    async def _look(self) -> tuple[float, KeyRing, Signer]:
        known = self._known
        if known is None or known[0] < time.monotonic():
            ring = await self._load()
            signer = Signer(ring.current.private, ring.current.kid)
            known = self._known = (time.monotonic() + REMEMBERED.total_seconds(), ring, signer)
        return known

    async def _load(self) -> KeyRing:
        async with self._store.write() as connection:
            sealed, ring = await self._read(connection)
            now = datetime.now(UTC)
            return await self._replace(connection, sealed, ring.rotated(now)) if ring.is_due(now) else ring

    async def _read(self, connection: AsyncConnection) -> tuple[bytes, KeyRing]:
        query = select(server_secrets.c.value).where(server_secrets.c.name == _ROW)
        value = await connection.scalar(query)
        if value is None:
            now = datetime.now(UTC)
            row = {"name": _ROW, "value": self._seal(KeyRing(KeyPair.make(now))), "created_at": now}
            await connection.execute(insert_or(connection, server_secrets).values(row).on_conflict_do_nothing())
            value = await connection.scalar(query)
        sealed = bytes(value or b"")
        return sealed, self._open(sealed)

    async def _replace(self, connection: AsyncConnection, sealed: bytes, ring: KeyRing) -> KeyRing:
        """Put a ring in the place of the one that was read; of several processes at once, one does."""
        query = update(server_secrets).where(server_secrets.c.name == _ROW, server_secrets.c.value == sealed)
        await connection.execute(query.values(value=self._seal(ring), created_at=datetime.now(UTC)))
        return (await self._read(connection))[1]

    def _seal(self, ring: KeyRing) -> bytes:
        previous = asdict(ring.previous) if ring.previous else None
        return self._vault.seal(dumps({"current": asdict(ring.current), "previous": previous}), label=_ROW)

    def _open(self, sealed: bytes) -> KeyRing:
        said = loads(self._vault.unseal(sealed, label=_ROW))
        previous = KeyPair(**said["previous"]) if said["previous"] else None
        return KeyRing(KeyPair(**said["current"]), previous)


def _jwk(key: ec.EllipticCurvePrivateKey) -> JSONObject:
    return cast(JSONObject, ECAlgorithm.to_jwk(key.public_key(), as_dict=True))


def _thumbprint(jwk: JSONObject) -> str:
    members = f'{{"crv":"{jwk["crv"]}","kty":"{jwk["kty"]}","x":"{jwk["x"]}","y":"{jwk["y"]}"}}'
    return urlsafe_b64encode(hashlib.sha256(members.encode()).digest()).rstrip(b"=").decode()
