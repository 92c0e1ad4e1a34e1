"""Tests that need a CUDA device: marked so, and skipped without one, in CI too."""

from __future__ import annotations

import pytest

from fleet.devices import visible_gpus


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "gpu" in item.path.parts:
            item.add_marker(pytest.mark.gpu)
            if not visible_gpus():
                item.add_marker(pytest.mark.skip(reason="no CUDA device is visible"))
