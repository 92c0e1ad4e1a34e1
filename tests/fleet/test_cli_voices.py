"""`fleet voices` against real fleets."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner, Result

from fleet.cli import app
from fleet.client import URL_VARIABLE
from tests.running import RunningWorker, free_port, wait_for
from tests.workers.voices.making import voice_file

Run = Callable[..., Result]


def running(url: str) -> Run:
    def run(*arguments: object) -> Result:
        environment = {URL_VARIABLE: url, "COLUMNS": "200"}
        return CliRunner().invoke(app, ["voices", *map(str, arguments)], env=environment)

    return run


@pytest.fixture
def anna(tmp_path: Path) -> Path:
    path = tmp_path / "Anna.wav"
    path.write_bytes(voice_file(200))
    return path


def test_voice_is_added_listed_and_removed(tmp_path: Path, anna: Path) -> None:
    """What the recording could do better is told; a name that is taken is an error of one line."""
    short = tmp_path / "short.wav"
    short.write_bytes(voice_file(90, 1.2))
    with RunningWorker(free_port(0)) as worker:
        run = running(worker.url)
        added = run("add", anna, short, "--alias", "an, na", "--alias", "x", "--language", "de", "--default")
        assert added.exit_code == 0, added.output
        assert "works best; yours is 1.2 s" in added.output
        row = ""

        def listed() -> bool:
            nonlocal row
            row = next(line for line in run().output.splitlines() if "Anna" in line)
            return "default" in row

        wait_for(listed)  # Until it is prepared, its status is that.
        assert all(part in row for part in ("anna", "de", "an, na, x"))
        again = run("add", anna)
        assert again.exit_code == 1
        assert again.output.strip().startswith("error: another voice")
        assert len(again.output.strip().splitlines()) == 1
        assert run("remove", "AN, NA").exit_code == 0
        assert run("remove", "anna").exit_code == 1


def test_library_moves_from_one_fleet_to_another(tmp_path: Path, anna: Path) -> None:
    """Recordings byte for byte, profiles with the new ids of their voices; once more changes nothing."""
    path = tmp_path / "library.zip"
    with RunningWorker(free_port(0)) as old:
        run = running(old.url)
        run("add", anna, "--name", "Анна", "--alias", "n", "--description", "warm")
        old_id = httpx2.get(f"{old.url}/voices?search=Анна", trust_env=False).json()["voices"][0]["id"]
        profile = {"name": "sad", "voices": ["n", "alto"], "temperature": 0.4}
        httpx2.post(f"{old.url}/emotions", json=profile, trust_env=False)
        exported = run("export", path)
        assert exported.exit_code == 0, exported.output
    with zipfile.ZipFile(path) as file:
        assert all(not name.endswith((".pt", ".pkl", ".safetensors")) for name in file.namelist())
        assert json.loads(file.read("library.json"))["voices"][0]["aliases"] == ["n"]
    with RunningWorker(free_port(0)) as new:
        run = running(new.url)
        imported = run("import", path)
        assert imported.exit_code == 0, imported.output
        voice = httpx2.get(f"{new.url}/voices?search=Анна", trust_env=False).json()["voices"][0]
        assert (voice["aliases"], voice["description"]) == (["n"], "warm")
        assert voice["id"] != old_id
        sample = httpx2.get(f"{new.url}/voices/{voice['id']}/sample", trust_env=False)
        assert sample.content == anna.read_bytes()
        mood = httpx2.get(f"{new.url}/emotions/sad", trust_env=False).json()
        assert (mood["voices"], mood["temperature"]) == ([voice["id"], "alto"], 0.4)
        again = run("import", path)
        assert again.exit_code == 0
        assert {line.rpartition(": ")[2] for line in again.output.splitlines()} == {"left as it is"}
        httpx2.delete(f"{new.url}/voices/{voice['id']}?force=true", trust_env=False)
        run("add", anna.with_name("Anna.wav"), "--name", "n")
        clash = run("import", path)
        assert clash.exit_code == 1
        assert "refused" in clash.output


def test_other_recordings_are_replaced_only_when_asked(tmp_path: Path, anna: Path) -> None:
    """Then profiles speak with the new voice."""
    path = tmp_path / "library.zip"
    with RunningWorker(free_port(0)) as worker:
        run = running(worker.url)
        run("add", anna)
        run("export", path)
        run("remove", "anna")
        anna.write_bytes(voice_file(100))
        run("add", anna)
        httpx2.post(f"{worker.url}/emotions", json={"name": "sad", "voices": ["anna"]}, trust_env=False)
        refused = run("import", path)
        assert refused.exit_code == 1
        assert "--replace" in refused.output
        replaced = run("import", path, "--replace")
        assert replaced.exit_code == 0, replaced.output
        mood = httpx2.get(f"{worker.url}/emotions/sad", trust_env=False).json()
        voice = httpx2.get(f"{worker.url}/voices/{mood['voices'][0]}/sample", trust_env=False)
        assert voice.content == voice_file(200)


def test_older_server_moves_in(tmp_path: Path, anna: Path) -> None:
    """What it names and has is taken over, the rest is told."""
    audio = tmp_path / "saved_voices" / "audio_files"
    audio.mkdir(parents=True)
    (audio / "v.wav").write_bytes(anna.read_bytes())
    entries = [{"name": "Old Anna", "audio_file": "audio_files/v.wav"}, {"name": "Lost", "audio_file": "lost.wav"}]
    (tmp_path / "saved_voices" / "voices.json").write_text(json.dumps({"voices": entries}))
    with RunningWorker(free_port(0)) as worker:
        moved = running(worker.url)("import-legacy", tmp_path)
        assert moved.exit_code == 1
        assert "'Old Anna': added" in moved.output
        assert "skipped: voice 'Lost'" in moved.output
        names = [voice["name"] for voice in httpx2.get(f"{worker.url}/voices", trust_env=False).json()["voices"]]
        assert "Old Anna" in names
