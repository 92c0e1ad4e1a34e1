"""`python -m balancer`: one balancer, configured by `BALANCER_*` in the environment."""

from __future__ import annotations

from balancer.app import make_app
from balancer.settings import BalancerSettings
from fleet.access import Access
from fleet.logs import configure_logging
from fleet.server import exit_with, serve
from fleet.startup_errors import StartupError


def main() -> None:
    try:
        settings = BalancerSettings.from_environment()
        configure_logging(settings.log_level, process="balancer")
        access = Access.of(settings)
        serve(
            lambda stopping: make_app(settings, access, stopping),
            host=settings.host,
            port=settings.port,
            shutdown_timeout_s=settings.shutdown_timeout_s,
        )
    except StartupError as error:
        exit_with(error)


if __name__ == "__main__":
    main()
