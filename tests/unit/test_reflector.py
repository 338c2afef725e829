"""Guards: whatever happens to a list or a watch, every object and every change is shown, and what is gone is told of."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import test_utils, web

from certrenewal.kube import reflector
from certrenewal.kube.reflector import Reflector

Shown = list[tuple[str, str]]
Answer = Callable[[web.Request], Any]


def item(name: str, version: int = 1, **more: Any) -> dict[str, Any]:
    """An object."""
    return {"metadata": {"namespace": "shop", "name": name, "resourceVersion": str(version)}, **more}


def page(*items: dict[str, Any], version: int = 1, following: str = "") -> Answer:
    """A LIST's answer."""
    metadata = {"resourceVersion": str(version), **({"continue": following} if following else {})}
    content = {"apiVersion": "apps/v1", "kind": "DeploymentList", "metadata": metadata, "items": list(items) or None}
    return lambda _: web.json_response(content)


def refusal(status: int) -> Answer:
    """An answer without content."""
    return lambda _: web.json_response({"message": "no"}, status=status)


def changes(*events: tuple[str, dict[str, Any]] | str, then: str = "end") -> Answer:
    """A WATCH's answer: some events, and what comes ``then``: its end, silence, or a broken connection."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event in events:
            line = event if isinstance(event, str) else json.dumps({"type": event[0], "object": event[1]})
            await response.write(line.encode() + b"\n")
        if then == "silence":
            await asyncio.sleep(30)
        if then == "break" and request.transport is not None:
            request.transport.abort()
        return response

    return answer


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "LONGEST_PAUSE", 0.001)
    monkeypatch.setattr(reflector, "ABSENT_PAUSE", 0.001)


class Collection:
    """Answers one after the other; what was asked, and what was shown."""

    def __init__(self, *answers: Answer, known: tuple[str, ...] = ()) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, str]] = []
        self.shown: Shown = []
        self.items: list[Any] = []
        self.known = [("shop", name) for name in known]
        self.drained = asyncio.Event()
        self.reflector: Reflector | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The next answer; silence once there is none left."""
        self.asked.append(dict(request.query))
        if not self.answers:
            self.drained.set()
            await asyncio.sleep(30)
        answer = self.answers.pop(0)(request)
        found: web.StreamResponse = await answer if asyncio.iscoroutine(answer) else answer
        return found

    def see(self, kind: str, body: Any) -> None:
        """What is shown."""
        if body["metadata"]["name"] == "odd":
            raise KeyError("spec")
        self.shown.append((kind, body["metadata"]["name"]))
        self.items.append(body)


@asynccontextmanager
async def following(found: Collection, *, may_be_absent: bool = False) -> AsyncIterator[Reflector]:
    """The reflector at work, until it has had every answer."""
    app = web.Application()
    app.router.add_get("/things", found.answer)
    async with test_utils.TestServer(app) as server, aiohttp.ClientSession() as session:
        followed = Reflector(
            session,
            str(server.make_url("/things")),
            see=found.see,
            known=lambda: found.known,
            query={"fieldSelector": "type!=x"},
            may_be_absent=may_be_absent,
        )
        task = asyncio.create_task(followed.run())
        async with asyncio.timeout(10):
            await found.drained.wait()
        yield followed
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_all_pages_are_shown_before_it_counts_as_listed() -> None:
    found = Collection(page(item("a"), following="more"), page(item("b"), version=7))

    async with following(found) as followed:
        assert followed.listed.is_set()

    assert found.shown == [("ADDED", "a"), ("ADDED", "b")]
    assert [asked.get("continue") for asked in found.asked[:2]] == [None, "more"]
    assert found.asked[2]["resourceVersion"] == "7"
    assert all(asked["fieldSelector"] == "type!=x" for asked in found.asked)


async def test_the_items_of_a_list_get_the_kind_that_they_lack() -> None:
    found = Collection(page(item("a")))

    async with following(found):
        assert (found.items[0]["apiVersion"], found.items[0]["kind"]) == ("apps/v1", "Deployment")


async def test_an_empty_list_of_metadata_has_null_for_items() -> None:
    found = Collection(page())

    async with following(found) as followed:
        assert followed.listed.is_set()


async def test_a_watch_is_taken_up_where_the_last_one_ended() -> None:
    found = Collection(
        page(item("a"), version=1),
        changes(("MODIFIED", item("a", 5)), ("BOOKMARK", item("", 9))),
        changes(("DELETED", item("a", 11))),
    )

    async with following(found):
        pass

    assert found.shown == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    assert [asked.get("resourceVersion") for asked in found.asked] == [None, "1", "9", "11"]


async def test_a_broken_connection_is_taken_up_where_it_was() -> None:
    found = Collection(page(version=1), changes(("ADDED", item("a", 5)), then="break"), changes())

    async with following(found):
        pass

    assert found.shown == [("ADDED", "a")]
    assert [asked.get("resourceVersion") for asked in found.asked[:3]] == [None, "1", "5"]


@pytest.mark.parametrize(
    "end", [refusal(410), changes(("ERROR", {"code": 410, "message": "too old"}))], ids=["answer", "event"]
)
async def test_a_version_that_is_too_old_leads_to_a_new_list_and_what_vanished_is_told_of(end: Answer) -> None:
    found = Collection(page(item("a"), item("b")), end, page(item("b", 9), version=9), known=("a", "b"))

    async with following(found):
        pass

    assert found.shown[2:] == [("ADDED", "b"), ("DELETED", "a")]
    assert found.items[-1]["kind"] == "Deployment"


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_an_api_server_that_refuses_is_asked_again(status: int) -> None:
    found = Collection(refusal(status), refusal(status), page(item("a")))

    async with following(found) as followed:
        assert followed.listed.is_set()

    assert found.shown == [("ADDED", "a")]


async def test_nonsense_is_survived() -> None:
    found = Collection(
        lambda _: web.Response(text="<html>"),
        page(item("a")),
        changes("no json"),
        page(item("a"), version=3),
        changes(("MODIFIED", {})),
        page(item("b")),
    )

    async with following(found):
        pass

    assert ("ADDED", "b") in found.shown


async def test_an_object_that_is_not_understood_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    found = Collection(
        page(item("odd", secret="hush"), item("a")), changes(("ADDED", item("odd")), ("ADDED", item("b")))
    )

    async with following(found):
        pass

    assert found.shown == [("ADDED", "a"), ("ADDED", "b")]
    assert "not understood" in caplog.text
    assert "hush" not in caplog.text


async def test_a_kind_that_may_be_absent_keeps_nobody_waiting_and_is_followed_once_it_is_there() -> None:
    found = Collection(refusal(404), page(item("a")))

    async with following(found, may_be_absent=True) as followed:
        assert followed.listed.is_set()

    assert found.shown == [("ADDED", "a")]


async def test_a_refusal_is_no_news_of_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "MOST_REFUSALS", 2)
    found = Collection(refusal(403), page(item("a")), refusal(403), refusal(403), page(item("a")), known=("a",))

    async with following(found, may_be_absent=True):
        pass

    assert found.shown == [("ADDED", "a"), ("ADDED", "a")]


async def test_a_kind_that_is_never_shown_to_us_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "MOST_REFUSALS", 1)

    async with following(Collection(refusal(403), refusal(403)), may_be_absent=True) as followed:
        assert followed.listed.is_set()


async def test_the_objects_of_a_kind_that_was_uninstalled_are_gone(caplog: pytest.LogCaptureFixture) -> None:
    found = Collection(page(item("a")), refusal(404), refusal(404), refusal(404), known=("a",))

    async with following(found, may_be_absent=True):
        found.known.clear()

    assert found.shown[:2] == [("ADDED", "a"), ("DELETED", "a")]
    assert caplog.text.count("cannot be followed") == 1


async def test_a_kind_that_must_be_there_is_waited_for() -> None:
    found = Collection(refusal(404), refusal(403))

    async with following(found) as followed:
        assert not followed.listed.is_set()


async def test_versions_that_are_always_too_old_are_no_reason_to_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def paused(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", paused)
    found = Collection(*[page(), refusal(410)] * 4)

    async with following(found):
        pass

    assert pauses[:4] == [0.0, 0.001, 0.001, 0.001]


async def test_one_object_that_nests_too_deep_does_not_hide_the_others() -> None:
    deep = json.dumps({"type": "ADDED", "object": item("deep", 2, spec="DEEP")}).replace(
        '"DEEP"', "[" * 5000 + "]" * 5000
    )
    found = Collection(page(version=1), changes(deep, ("ADDED", item("a", 3))))

    async with following(found):
        pass

    assert found.shown == [("ADDED", "deep"), ("ADDED", "a")]
