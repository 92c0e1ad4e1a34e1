"""The library's schema, version by version; run by `workers.voices.database` when a worker starts."""
