"""A worker's HTTP routes."""
