"""The `fleet` command against a real fleet."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from fleet.contract import AudioFormat
from tests.running import ROOT, RunningBalancer, RunningFleet, wait_for
from tests.sound import decode, loudness
from tests.terminal import OnTerminal

COMMAND = [sys.executable, "-P", "-c", "from fleet.cli import app; app()"]


def run(
    fleet: RunningFleet | str, cwd: Path, *arguments: str, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    url = fleet if isinstance(fleet, str) else fleet.url
    environment = {**os.environ, "FLEET_URL": url, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, env=environment, capture_output=True, timeout=60, check=False, input=given
    )


def test_say_writes_the_named_file(fleet: RunningFleet, tmp_path: Path) -> None:
    """`-o` names the file, which is complete, playable and nothing beside it."""
    ended = run(fleet, tmp_path, "say", "Hello there.", "-o", "out.wav", "--voice", "tenor", "--emotion", "calm")
    assert ended.returncode == 0, ended.stderr
    assert b"wrote out.wav" in ended.stderr
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert 0.5 < file.getnframes() / file.getframerate() < 2.5
    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]


def test_say_without_a_file_names_one_and_says_so(fleet: RunningFleet, tmp_path: Path) -> None:
    """The name comes from the text, in any script, and never overwrites."""
    for _ in range(2):
        assert run(fleet, tmp_path, "say", "Grüß Gott, Welt! Wie geht's?").returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "grüß-gott-welt-wie-geht-s-2.wav",
        "grüß-gott-welt-wie-geht-s.wav",
    ]


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_format_follows_the_files_name(fleet: RunningFleet, tmp_path: Path, audio_format: AudioFormat) -> None:
    """The ending decides, and the content is what it says."""
    assert run(fleet, tmp_path, "say", "Hello there.", "-o", f"x.{audio_format}").returncode == 0
    samples, _ = decode((tmp_path / f"x.{audio_format}").read_bytes(), audio_format)
    assert loudness(samples) > 0.02


def test_stream_writes_sound_to_standard_output(fleet: RunningFleet, tmp_path: Path) -> None:
    """`--stream` gives bare sound for a pipe, and no file."""
    ended = run(fleet, tmp_path, "say", "--stream", "--format", "flac", "Hello there.")
    assert loudness(decode(ended.stdout, AudioFormat.flac)[0]) > 0.02
    assert not list(tmp_path.iterdir())


def test_text_from_standard_input(fleet: RunningFleet, tmp_path: Path) -> None:
    """A dash reads the text from a pipe."""
    assert run(fleet, tmp_path, "say", "-", "-o", "x.wav", given=b"Hello from a pipe.").returncode == 0
    assert (tmp_path / "x.wav").stat().st_size > 20_000


def test_unhonoured_parameter_is_told(fleet: RunningFleet, tmp_path: Path) -> None:
    """A seed and a quality mean nothing to the embedded engine, and the person learns it."""
    ended = run(fleet, tmp_path, "say", "Hi.", "--seed", "3", "--quality", "draft")
    assert b"not honoured by this engine: quality,seed" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["say", ""], "text: must hold text"),
        (["say", "..."], "nothing that can be spoken"),
        (["say", "a" * 10_001], "at most 10000"),
        (["say", "hi", "--voice", "nobody"], "there is no voice 'nobody'"),
        (["say", "hi", "--emotion", "furious"], "there is no emotion 'furious'"),
        (["say", "hi", "--speed", "9"], "speed"),
        (["say", "hi", "--seed", "-1"], "seed"),
        (["say", "hi", "--quality", "best"], "quality"),
        (["say", "hi", "-o", "x.doc"], "no format is called 'doc'"),
        (["say", "hi", "-o", "x.mp3", "--format", "wav"], "not what its name promises"),
        (["say", "hi", "-o", "missing/x.wav"], "there is no folder missing"),
        (["say", "hi", "--stream", "-o", "x.wav"], "leave out -o"),
    ],
)
def test_mistake_is_one_clear_line_and_leaves_no_file(
    fleet: RunningFleet, tmp_path: Path, arguments: list[str], says: str
) -> None:
    """Exit code 1, what is wrong, no traceback and nothing half-written."""
    ended = run(fleet, tmp_path, *arguments)
    assert ended.returncode == 1
    assert ended.stderr.decode().startswith("error: ")
    assert says in ended.stderr.decode()
    assert len(ended.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_nobody_there_is_said(tmp_path: Path) -> None:
    """Every command says that nothing answers, and where."""
    for command in (["say", "hi"], ["voices"], ["status"]):
        ended = run("http://127.0.0.1:1", tmp_path, *command)
        assert ended.returncode == 1
        assert b"nothing answers at http://127.0.0.1:1" in ended.stderr


def test_odd_file_name_is_told_as_it_is(fleet: RunningFleet, tmp_path: Path) -> None:
    """Brackets are no markup, and a long name is not broken over lines."""
    name = "[red]" + "long" * 40 + ".wav"
    assert f"wrote {name}\n".encode() in run(fleet, tmp_path, "say", "Hi.", "-o", name).stderr
    assert (tmp_path / name).exists()


def test_address_without_a_scheme_is_understood(fleet: RunningFleet, tmp_path: Path) -> None:
    """`FLEET_URL=host:port` means HTTP."""
    assert run(f"127.0.0.1:{fleet.port}", tmp_path, "voices").returncode == 0


def test_wrong_address_is_said(tmp_path: Path, fleet: RunningFleet) -> None:
    """An address that is none, and a worker's address where the balancer's is meant."""
    assert run("nonsense", tmp_path, "status").returncode == 1
    assert b"Traceback" not in run("nonsense", tmp_path, "status").stderr
    ended = run(fleet.worker_urls()[0], tmp_path, "status")
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"error: ")


def test_voices_are_listed(fleet: RunningFleet, tmp_path: Path) -> None:
    """With the names they answer to."""
    listed = run(fleet, tmp_path, "voices").stdout.decode()
    for name in ("alto", "soprano", "alloy", "whisper"):
        assert name in listed


def test_status_shows_each_worker(fleet: RunningFleet, tmp_path: Path) -> None:
    """One row a worker with its state and figures."""
    ended = run(fleet, tmp_path, "status")
    assert ended.returncode == 0
    for word in ("2 of 2 ready (cpu)", "worker-0", "worker-1", "espeak-ng-1.52.0", "MiB"):
        assert word in ended.stdout.decode()


def on_terminal(fleet: RunningFleet, cwd: Path, *arguments: str) -> OnTerminal:
    environment = {"FLEET_URL": fleet.url, "PYTHONPATH": str(ROOT)}
    return OnTerminal([*COMMAND, *arguments], cwd=cwd, environment=environment)


def test_status_says_why_a_worker_is_not_ready(tmp_path: Path) -> None:
    """The reason stands below the table, whole, and with no worker ready the exit code is 1."""
    with RunningBalancer("http://127.0.0.1:1") as balancer:
        wait_for(lambda: "probe failed" in (balancer.stats().workers[0].reason or ""))
        ended = run(balancer.url, tmp_path, "status")
    assert ended.returncode == 1
    assert re.search(r"http://127.0.0.1:1 is starting for \d+ s: its probe failed: ", ended.stdout.decode())


def test_status_watch_refreshes_until_interrupted(fleet: RunningFleet, tmp_path: Path) -> None:
    """On a terminal the table is drawn again and again, and Ctrl-C ends it with code 0."""
    terminal = on_terminal(fleet, tmp_path, "status", "--watch", "--interval", "0.2")
    wait_for(lambda: terminal.shown.count(b"of 2 ready") >= 3)
    terminal.press(b"\x03")
    assert terminal.wait() == 0


def test_progress_is_shown_on_a_terminal(fleet: RunningFleet, tmp_path: Path) -> None:
    """While a long text is spoken, the terminal shows how many seconds have come."""
    terminal = on_terminal(fleet, tmp_path, "say", "Hello there, this is long. " * 300, "-o", "x.wav")
    assert terminal.wait() == 0
    assert b"s of sound" in terminal.shown
    assert b"wrote x.wav" in terminal.shown
