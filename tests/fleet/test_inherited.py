"""A listening socket outlives the balancers that answer on it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from fleet.inherited import inherited_listeners
from tests.running import ROOT, RunningWorker, free_port

AS_SYSTEMD_STARTS_IT = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-P", "-m", "balancer"])
"""


@contextmanager
def balancer_on(listener: socket.socket, worker_url: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", AS_SYSTEMD_STARTS_IT, str(listener.fileno())],
        env={**os.environ, "PYTHONPATH": str(ROOT), "BALANCER_WORKERS": worker_url},
        pass_fds=(listener.fileno(),),
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def test_socket_is_kept_over_a_restart() -> None:
    """A request that comes while no balancer runs is spoken by the next one, which knows its workers by then."""
    with RunningWorker(free_port(0)) as worker, socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with balancer_on(listener, worker.url) as first:
            answer = httpx2.post(f"{url}/synthesize", json={"text": "One."}, timeout=30, trust_env=False)
            assert answer.status_code == 200
        assert first.returncode is not None
        with socket.create_connection(listener.getsockname()) as caller:
            body = b'{"text": "Two."}'
            caller.sendall(
                b"POST /synthesize HTTP/1.1\r\nhost: fleet\r\nconnection: close\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%s" % (len(body), body)
            )
            with balancer_on(listener, worker.url) as second:
                caller.settimeout(30)
                answered = b"".join(iter(lambda: caller.recv(65536), b""))
                assert second.poll() is None
        assert answered.startswith(b"HTTP/1.1 200 ")
        assert b"RIFF" in answered


def test_sockets_of_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without LISTEN_PID, or with another's, there is nothing; and the variables reach no child."""
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert inherited_listeners("127.0.0.1") == []
    assert "LISTEN_FDS" not in os.environ
    assert inherited_listeners("127.0.0.1") == []


@pytest.mark.parametrize("kind", ["public", "connected", "file"])
def test_unfit_descriptor_is_refused(kind: str) -> None:
    """What does not listen, or listens to the world where the settings say loopback, stops the start with one line."""
    listener = socket.create_server(("0.0.0.0", 0)) if kind == "public" else socket.socket()
    with listener, Path(os.devnull).open() as nothing:
        number = nothing.fileno() if kind == "file" else listener.fileno()
        done = subprocess.run(
            [sys.executable, "-c", AS_SYSTEMD_STARTS_IT, str(number)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            pass_fds=(number,),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    told = "listens on 0.0.0.0" if kind == "public" else "of LISTEN_FDS"
    assert told in done.stderr
    assert "Traceback" not in done.stderr
