"""What the page is built from, and what the build weighs."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ROOT
from tests.webui.building import PAGE, build, npm, run

LARGEST_FIRST_LOAD = 200_000
"""Bytes, compressed."""


@pytest.fixture(scope="module")
def dist() -> Path:
    return build()


@pytest.mark.usefixtures("dist")
def test_style_and_types() -> None:
    """Biome and TypeScript find nothing."""
    npm("run", "check")


@pytest.mark.usefixtures("dist")
def test_types_are_those_of_the_fleet(tmp_path: Path) -> None:
    """The document is what the routes are now, and the types are made of it."""
    subprocess.run([sys.executable, ROOT / "scripts/make_openapi.py", "--check"], cwd=ROOT, check=True)
    made = tmp_path / "schema.d.ts"
    run(["npx", "openapi-typescript", "openapi.json", "--default-non-nullable=false", "--output", str(made)], cwd=PAGE)
    assert made.read_text() == (PAGE / "src/api/schema.d.ts").read_text(), "run `npm run types` in webui/"


@pytest.mark.usefixtures("dist")
def test_stores_and_the_audio_queue() -> None:
    """Vitest's tests, which lie beside what they test."""
    assert "passed" in npm("test")


def test_first_load_is_small(dist: Path) -> None:
    """All that a browser fetches before the first screen can be used, with the player, as it is sent: compressed."""
    page = (dist / "index.html").read_text()
    named = re.findall(r'(?:src|href)="/ui/([^"]+)"', page)
    worklets = [found.relative_to(dist).as_posix() for found in dist.glob("assets/player.worklet-*.js")]
    assert len(worklets) == 1
    first = ["index.html", *named, *worklets]
    sizes = {name: (dist / f"{name}.gz").stat().st_size for name in first}
    assert sum(sizes.values()) <= LARGEST_FIRST_LOAD, sizes
    later = [found.name for found in dist.glob("assets/*.js") if found.name not in "".join(first)]
    for screen in ("voicesScreen", "emotionsScreen", "fleetScreen"):
        assert any(name.startswith(screen) for name in later), later


def test_gzipped_twins_hold_the_same(dist: Path) -> None:
    """Each text file has one."""
    files = [found for found in dist.rglob("*") if found.suffix in (".html", ".js", ".css", ".svg")]
    assert len(files) > 5
    for file in files:
        assert gzip.decompress(file.with_name(f"{file.name}.gz").read_bytes()) == file.read_bytes()


def test_nothing_is_loaded_from_elsewhere(dist: Path) -> None:
    """No file of the build names another origin that it could ask."""
    for file in [*dist.rglob("*.html"), *dist.rglob("*.css")]:
        assert not re.search(r"""(src|href)="https?:|url\(["']?https?:|@import""", file.read_text()), file


def test_packages_are_locked_without_addresses() -> None:
    """Each has a digest, and no registry is named."""
    lock = json.loads((PAGE / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert len(packages) > 50
    for name, package in packages.items():
        assert "resolved" not in package, name
        assert package.get("inBundle") or package["integrity"].startswith("sha512-"), name


def test_source_files_stay_readable() -> None:
    """None is above 300 lines, and each says in its first line what it is."""
    for file in [*PAGE.glob("src/**/*.ts*"), *PAGE.glob("browser/*.ts")]:
        if file.name in ("schema.d.ts", "vite-env.d.ts") or ".test." in file.name or file.name == "main.tsx":
            continue
        text = file.read_text()
        assert text.startswith("// "), file
        assert ".spec." in file.name or len(text.splitlines()) <= 300, file
