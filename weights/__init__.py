"""The manifest of known checkpoints, and small recorded references; installed as `minibert.manifest`."""
