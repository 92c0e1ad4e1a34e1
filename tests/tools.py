"""The programs beside our own that some tests run."""

from __future__ import annotations

import os
import shutil

import pytest


def require_tool(name: str) -> str:
    """The program's path. Without the program the test is skipped, but fails in CI, where everything is installed."""
    # Debian keeps nginx and HAProxy in a directory that only root's PATH names.
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if path is not None:
        return path
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is not installed")
    pytest.skip(f"{name} is not installed")
