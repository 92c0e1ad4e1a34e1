"""Who speaks and how: named voices and emotion profiles."""
