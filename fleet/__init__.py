"""What workers, the balancer and the command line share. Knows neither torch nor SQL."""

__version__ = "0.1.0"
