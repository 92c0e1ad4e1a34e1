"""The error hierarchy."""

from __future__ import annotations

import re

import pytest

import fleet.errors
import fleet.startup_errors
from fleet.error_answers import from_response, leaves
from fleet.errors import FleetError, UpstreamFailed


def test_module_draws_the_whole_tree() -> None:
    """The docstrings list every error with its own status and code, and none that is not there."""
    drawings = f"{fleet.errors.__doc__}\n{fleet.startup_errors.__doc__}"
    drawn = set(re.findall(r"([A-Z]\w+) +(\d{3}) (\w+)$", drawings, re.MULTILINE))
    assert drawn == {(kind.__name__, str(kind.status), kind.code) for kind in leaves()}


def test_codes_are_distinct_and_statuses_are_errors() -> None:
    """A code names one error only."""
    kinds = list(leaves())
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(400 <= kind.status < 600 for kind in kinds)


@pytest.mark.parametrize("kind", list(leaves()))
def test_error_survives_the_wire(kind: type[FleetError]) -> None:
    """What a server raises is what its client raises."""
    raised = from_response(kind.status, kind("a message", param="field").body("id"))
    assert (type(raised), raised.message, raised.param) == (kind, "a message", "field")


@pytest.mark.parametrize("body", [None, "text", [], {}, {"error": "x"}, {"error": {"code": "unheard_of"}}])
def test_foreign_error_page_is_still_an_error(body: object) -> None:
    """A proxy's own error page becomes an error that tells the status."""
    raised = from_response(502, body)
    assert isinstance(raised, UpstreamFailed)
    assert "502" in raised.message


def test_quoted_input_is_bounded_and_printable() -> None:
    """A caller's own text in a message can neither flood the answer nor break its encoding."""
    error = FleetError("x" * 10_000 + "\ud800", param="\udfff" * 500)
    assert len(error.message) <= 2000
    assert error.param is not None
    assert len(error.param.encode()) <= 100
