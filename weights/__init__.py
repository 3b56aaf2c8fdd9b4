"""The manifest of known checkpoints and small recorded references, as `minibert.manifest`."""
