"""The web page: what it is built from, what the build weighs, and every flow in a real browser."""
