"""One GPU's server: the HTTP API, the synthesis use case, voices and engines."""
