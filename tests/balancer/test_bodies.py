"""Bodies that a balancer holds until they are whole: on disk when they are large, and nothing of them afterwards."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.balancer import faulty
from tests.running import RunningBalancer, RunningFleet, RunningWorker, free_port, wait_for

LARGE = b"x" * 3 * 2**20


def upload(balancer: RunningBalancer) -> httpx2.Response:
    files = {"file": ("v.wav", LARGE, "audio/wav")}
    return httpx2.post(f"{balancer.url}/voices", data={"name": "v"}, files=files, trust_env=False, timeout=20)


def test_disk_without_room_is_said_and_nothing_stays(fleet: RunningFleet) -> None:
    """An upload for which the balancer has no room is 507; speech goes on, and so do uploads once there is room."""
    with RunningBalancer(fleet.worker_urls()[0], probe_interval_s=0.1) as balancer:
        balancer.wait_ready(1)
        process = psutil.Process(balancer.process.pid)
        before = process.num_fds()
        process.rlimit(resource.RLIMIT_FSIZE, (2 * 2**20, resource.RLIM_INFINITY))
        for _ in range(5):
            refused = upload(balancer)
            assert (refused.status_code, refused.json()["error"]["code"]) == (507, "storage_full")
        said = {"input": "Hello.", "response_format": "pcm"}
        assert httpx2.post(f"{balancer.url}/v1/audio/speech", json=said, trust_env=False).status_code == 200
        process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert upload(balancer).status_code == 422, "the worker has seen it: it is not a recording"
        wait_for(lambda: process.num_fds() <= before + 4, 5)


def form_in_pieces(size: int, piece: int) -> Iterator[bytes]:
    """A form whose file is `size` bytes long and then twenty pieces more, slowly."""
    yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="v.wav"\r\n\r\n'
    yield b"x" * size
    for _ in range(20):
        time.sleep(0.005)
        yield b"x" * piece
    yield b"\r\n--x--\r\n"


@pytest.mark.parametrize("server", ["balancer", "worker"])
@pytest.mark.parametrize(("size", "piece"), [(2**21 - 3000, 700), (3 * 2**20, 70_000)])
def test_disk_that_fills_piece_by_piece_is_said_too(
    fleet: RunningFleet, tmp_path: Path, server: str, size: int, piece: int
) -> None:
    """507 from whoever holds the body; what a buffer still holds then is not tried again."""
    with (
        RunningWorker(free_port(0), data_dir=tmp_path)
        if server == "worker"
        else RunningBalancer(fleet.worker_urls()[0], probe_interval_s=0.1)
    ) as running:
        wait_for(lambda: httpx2.get(f"{running.url}/ready", trust_env=False).status_code == 200)
        psutil.Process(running.process.pid).rlimit(resource.RLIMIT_FSIZE, (2**21, resource.RLIM_INFINITY))
        refused = httpx2.post(
            f"{running.url}/voices",
            content=form_in_pieces(size, piece),
            headers={"content-type": "multipart/form-data; boundary=x"},
            trust_env=False,
            timeout=20,
        )
        assert (refused.status_code, refused.json()["error"]["code"]) == (507, "storage_full")


def test_large_upload_that_began_at_a_worker_is_not_sent_to_another(fleet: RunningFleet) -> None:
    """What a worker may have done before it failed is not done twice: the caller is told that it is not known."""
    with (
        faulty.FaultyWorker(faulty.close_before_headers) as broken,
        RunningBalancer(broken.url, fleet.worker_urls()[0], probe_interval_s=0.1) as balancer,
    ):
        balancer.wait_ready(2)
        answers = sorted(upload(balancer).status_code for _ in range(2))
        assert answers == [422, 502]
