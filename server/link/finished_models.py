"""Gives a site the model of a study that it took part in, or may take part in now.

The site is the one of the TLS certificate. Each site fetches one at a time; the file is read as the
site takes it, so that a slow one holds a connection of its own and no memory.
"""

import asyncio
import json
import logging
from pathlib import Path

from starlette.responses import FileResponse, JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from wardround.common.security.released_model import RELEASE_HEADER, ReleasedModel
from wardround.server.checkpoints.present import find_present
from wardround.server.checkpoints.release import find_release

_MODEL_FILE = "model.safetensors"
_NONE, _BUSY, _UNREADY = 404, 429, 503
_WORDS = {_NONE: "no-model", _BUSY: "too-many", _UNREADY: "unready"}

logger = logging.getLogger(__name__)


class FinishedModels:
    """The models of a server folder.

    Args:
        folder: The server's.
        are_given: Whether ``server.toml`` lets sites have them.
    """

    def __init__(self, folder: Path, are_given: bool) -> None:
        self._folder, self._are_given = folder, are_given
        self._fetching: set[str] = set()

    def answer(self, site: str, study: str, now: bool = False) -> ASGIApp:
        """Return what answers a site that asks for the model of a study, by its digest.

        Args:
            now: Whether it asks for the last model of a run that is not over.
        """

        async def give(scope: Scope, receive: Receive, send: Send) -> None:
            if site in self._fetching:
                await refusal(_BUSY)(scope, receive, send)
                return
            self._fetching.add(site)
            try:
                response = await self._response(site, study, now)
                await response(scope, receive, send)
            finally:
                self._fetching.discard(site)

        return give

    async def _response(self, site: str, study: str, now: bool) -> ASGIApp:
        if not self._are_given:
            return refusal(_NONE)
        try:
            find = find_present if now else find_release
            found = await asyncio.to_thread(find, self._folder, study, site)
            if found is None:
                return refusal(_NONE)
            release, folder = found
            path = folder / _MODEL_FILE
            said = ReleasedModel(
                run=release.run,
                model=release.model,
                round=release.round,
                sites=len(release.took_part),
                bytes=path.stat().st_size,
            )
        except (OSError, ValueError) as error:
            logger.error("a finished model cannot be given: %s", type(error).__name__)
            return refusal(_UNREADY)
        logger.info("the model of run %s is given to %s", release.run, site)
        headers = {RELEASE_HEADER: json.dumps(said.model_dump())}
        return FileResponse(path, headers=headers, media_type="application/octet-stream")


def refusal(status: int) -> JSONResponse:
    """Return a refusal in one word; it ends the connection."""
    return JSONResponse({"refused": _WORDS[status]}, status, {"connection": "close"})
