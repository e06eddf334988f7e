"""One worker's ways to its functions. Imports boto3, which a worker without functions need not have."""

from __future__ import annotations

from schemas.settings import Settings
from workers.executors.awslambda.api_door import LambdaApi
from workers.executors.awslambda.door import Door
from workers.executors.awslambda.url_door import FunctionUrls


class BothDoors:
    """Lambda's API for names and ARNs, HTTP for Function URLs; each is opened when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._api: LambdaApi | None = None
        self._urls: FunctionUrls | None = None

    def door(self, function: str, *, streams: bool) -> Door:
        if function.startswith(("https://", "http://")):
            self._urls = self._urls or FunctionUrls(self._settings)
            return self._urls.door(function)
        self._api = self._api or LambdaApi(self._settings)
        return self._api.door(function, streams=streams)

    async def aclose(self) -> None:
        if self._api is not None:
            self._api.close()
        if self._urls is not None:
            await self._urls.aclose()
