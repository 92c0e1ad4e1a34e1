"""Files of speech and recordings over HTTP, at a worker and through the balancer."""

from __future__ import annotations

import re

import httpx2
import pytest


@pytest.fixture(params=["worker", "balancer"])
def side(request: pytest.FixtureRequest, http: httpx2.Client, worker_http: httpx2.Client) -> httpx2.Client:
    return http if request.param == "balancer" else worker_http


@pytest.fixture
def kept(side: httpx2.Client) -> str:
    """The address of a file of speech."""
    return str(side.post("/generate", json={"text": "Hi."}).json()["audio_url"])


@pytest.mark.parametrize(
    "asked", ["bytes=abc", "bytes=5-2", "items=0-5", "", "bytes=", "bytes=1-2-3", "bytes", "bytes=0-1,x", "=0-5"]
)
def test_a_range_that_cannot_be_understood_is_passed_over(side: httpx2.Client, kept: str, asked: str) -> None:
    """The whole file is the answer, as if there had been none."""
    answer = side.get(kept, headers={"range": asked})
    assert (answer.status_code, answer.content) == (200, side.get(kept).content)


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-3", slice(0, 4)),
        ("bytes=10-", slice(10, None)),
        ("BYTES = -5", slice(-5, None)),
        ("bytes=4-99999999999", slice(4, None)),
        ("bytes=0-3, 99999999-", slice(0, 4)),
        ("bytes=-99999999", slice(None)),
    ],
)
def test_a_range_is_served(side: httpx2.Client, kept: str, asked: str, part: slice) -> None:
    """What of it lies within the file; what lies behind its end is left out where something else was asked for."""
    whole = side.get(kept).content
    answer = side.get(kept, headers={"range": asked})
    assert (answer.status_code, answer.content) == (206, whole[part])
    assert re.fullmatch(rf"bytes \d+-\d+/{len(whole)}", answer.headers["content-range"])
    assert side.head(kept, headers={"range": asked}).status_code == 200  # ranges are GET's alone
    other = side.get(kept, headers={"range": asked, "if-range": '"other"'})
    assert (other.status_code, other.content) == (200, whole)


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0", "bytes=99999999-999999999, 88888888-"])
def test_a_range_behind_the_end_is_refused(side: httpx2.Client, kept: str, asked: str) -> None:
    """With the size of the file."""
    answer = side.get(kept, headers={"range": asked})
    assert (answer.status_code, answer.json()["error"]["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(side.get(kept).content)}"


def test_a_file_is_not_sent_again_to_who_has_it(side: httpx2.Client, kept: str) -> None:
    """It may be kept for as long as it is kept here, and its tag is enough to ask for it again."""
    first = side.get(kept)
    age = re.fullmatch(r"private, max-age=(\d+), immutable", first.headers["cache-control"])
    assert age is not None
    assert 86_000 < int(age[1]) <= 86_400
    for tags in (first.headers["etag"], f'"x", W/{first.headers["etag"]}', "*"):
        again = side.get(kept, headers={"if-none-match": tags})
        assert (again.status_code, again.content) == (304, b""), tags
        assert again.headers["etag"] == first.headers["etag"]
    assert side.get(kept, headers={"if-none-match": '"x"'}).content == first.content
