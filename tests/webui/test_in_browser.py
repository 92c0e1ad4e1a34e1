"""Every flow of the page in Debian's Chromium, against a real fleet: webui/browser/, run by Playwright."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.webui.building import PAGE, build, run

SPECS = sorted(PAGE.glob("browser/*.spec.ts"), key=lambda spec: -spec.stat().st_size)


@pytest.fixture(scope="module", autouse=True)
def dist() -> Path:
    return build()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name.removesuffix(".spec.ts"))
def test_in_a_browser(spec: Path) -> None:
    """All tests of the file; its screenshots are left in webui/artefacts/screens."""
    said = run(["npx", "playwright", "test", f"browser/{spec.name}"], cwd=PAGE, limit_s=400)
    assert " passed" in said
    assert " skipped" not in said
