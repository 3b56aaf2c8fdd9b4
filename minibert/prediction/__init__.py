"""Prediction from a saved folder: classes, numbers, tags, answers and masked words of texts."""
