"""A hub whose pages are asked in this process."""

import asyncio
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))
scenes = importlib.import_module("scene")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Any]:
    """A hub with four approved parties."""
    made = scenes.Scene(tmp_path)
    for name in scenes.NAMES:
        made.party(name)
    yield made
    made.close()


class Asking:
    """An application that is asked from a test, without a line."""

    def __init__(self, app: Any, url: str) -> None:
        httpx = pytest.importorskip("httpx")
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=url)

    def __call__(self, method: str, path: str, **more: Any) -> Any:
        self._client.cookies.clear()
        return self._runner.run(self._client.request(method, path, **more))

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


@pytest.fixture
def line(scene: Any) -> Iterator[Any]:
    """The whole application of a hub: `line("GET", "/v1/health")`."""
    from comity.ledger.blobs import Blobs
    from comity.service.hub import Hub, app
    from comity.service.pages import pages

    blobs = Blobs(scene.folder / "hub")
    hub = Hub(scene.registry.db, blobs, scene.identity, doors=scene.registry, most=1 << 20, url=scene.url)
    made = Asking(app(hub, pages(scene)), scene.url)
    yield made
    made.close()
    hub.close()


@pytest.fixture
def ask(line: Any, scene: Any) -> Any:
    """Ask its pages: `ask("/", who)`, `ask("/logout", who, name="value")`; `who` is a cookie and a token."""

    def asked(path: str, who: tuple[str, str] = ("", ""), *, headers: Any = None, **fields: str) -> Any:
        cookies = {"Cookie": f"comity={who[0]}"} if who[0] else {}
        if headers is None and not fields:
            return line("GET", path, headers=cookies)
        sent = {"Origin": scene.url, **cookies, **(headers or {})}
        return line("POST", path, headers={k: v for k, v in sent.items() if v}, data={"token": who[1], **fields})

    return asked
