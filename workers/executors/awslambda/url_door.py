"""Invokes a function by its URL: an HTTP request, signed as AWS signs them (SigV4)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, NoReturn
from urllib.parse import urlsplit

import boto3
import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError

from schemas.settings import Settings
from workers.executors.awslambda.errors import BrokeOff, FunctionFailed, NeverBegan, Throttled

#: Seconds without a byte after which a connection is given up: Lambda ends a function after 900.
_LONGEST: Final = 960.0
#: https://<id>.lambda-url.<region>.on.aws/
_HOST: Final = re.compile(r"[a-z0-9]+\.lambda-url\.([a-z0-9-]+)\.on\.aws")


class FunctionUrls:
    """One worker's client of functions that have URLs."""

    def __init__(self, settings: Settings) -> None:
        self._region = settings.aws_region
        self._session: boto3.Session | None = None
        timeout = httpx.Timeout(_LONGEST, connect=5, pool=5)
        limits = httpx.Limits(max_connections=settings.max_concurrency)
        self._http = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False)

    def door(self, url: str) -> UrlDoor:
        return UrlDoor(self, self._http, url)

    async def signed(self, url: str, body: bytes) -> Mapping[str, str]:
        """Give the headers of a request. In a thread, as credentials may have to be fetched. Raises NeverBegan."""
        return await asyncio.to_thread(self._sign, url, body)

    async def aclose(self) -> None:
        await self._http.aclose()

    def _sign(self, url: str, body: bytes) -> Mapping[str, str]:
        match = _HOST.fullmatch(urlsplit(url).hostname or "")
        region = match[1] if match else self._region
        try:
            self._session = self._session or boto3.Session(region_name=self._region)
            found = self._session.get_credentials()
            frozen = found.get_frozen_credentials() if found is not None else None
        except BotoCoreError as error:
            raise NeverBegan(f"no credentials to sign requests with ({error})") from error
        if frozen is None or region is None:
            raise NeverBegan(
                "requests to a Function URL must be signed: give AWS_REGION and credentials (AWS_ACCESS_KEY_ID or a "
                "role)"
            )
        request = AWSRequest("POST", url, headers={"content-type": "application/json"}, data=body)
        credentials = Credentials(frozen.access_key, frozen.secret_key, frozen.token)
        SigV4Auth(credentials, "lambda", region).add_auth(request)
        return dict(request.headers.items())


class UrlDoor:
    """A function by its URL. What streams is the URL's own setting (InvokeMode)."""

    def __init__(self, urls: FunctionUrls, http: httpx.AsyncClient, url: str) -> None:
        self._urls = urls
        self._http = http
        self._url = url

    async def ask(self, event: bytes, *, begins: Callable[[], None]) -> AsyncIterator[bytes]:
        headers = await self._urls.signed(self._url, event)
        begins()
        try:
            async with self._http.stream("POST", self._url, content=event, headers=dict(headers)) as response:
                if response.status_code != 200:
                    _raise(self._url, response.status_code, (await response.aread())[:500].decode(errors="replace"))
                async for piece in response.aiter_bytes():
                    yield piece
        except httpx.PoolTimeout:
            raise Throttled("this worker waits for as many functions as it may") from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise NeverBegan(f"{self._url} can't be reached ({error}); check LAMBDA_EXECUTOR_FUNCTION") from error
        except httpx.TransportError as error:
            raise BrokeOff(f"{type(error).__name__}: {error}") from error

    async def send(self, event: bytes) -> None:
        raise NeverBegan(
            f"{self._url} is a Function URL, which can't be invoked as an Event; name the function or its ARN"
        )


def _raise(url: str, status: int, said: str) -> NoReturn:
    match status:
        case 429:
            raise Throttled(f"{url} is throttled ({said})")
        case 502:
            raise FunctionFailed("", f"its URL answers 502 ({said}), and only its log says why")
        case 504:
            raise FunctionFailed("Sandbox.Timedout", f"its URL answers 504 ({said})")
        case 403:
            raise NeverBegan(
                f"{url} refused ({said}); give these credentials lambda:InvokeFunctionUrl and lambda:InvokeFunction on "
                "it"
            )
        case _ if status >= 500:
            raise BrokeOff(f"{url} answers {status} ({said})")
        case _:
            raise NeverBegan(f"{url} answers {status} ({said}); check LAMBDA_EXECUTOR_FUNCTION")
