"""Edits of minibert/prediction/classifier.py, each of which a test has to notice."""

EDITS = (
    ("settings.thresholds or (0.5,)", "(0.5,)"),
    ("thresholds=self.settings.thresholds, temperature", "temperature"),
    ("logits.double() / self.settings.temperature", "logits.double()"),
    ("odds[:, 0] if odds.shape[1] == 1 else odds[:, 1] - odds[:, 0]", "odds[:, -1]"),
    ("torch.stack([1 - second, second], dim=1)", "torch.stack([second, 1 - second], dim=1)"),
    ("found[:, 1] > self._thresholds[0]", "found[:, 1] >= self._thresholds[0]"),
    ("above = (found > self._thresholds).tolist()", "above = (found >= self._thresholds).tolist()"),
    ("sorted(there, key=lambda x: -by_label[x])", "there"),
    ("how=self.settings.merge_windows", 'how="mean"'),
    ("truncated=pieces.truncated[row]", "truncated=False"),
    ('settings.labels or (f"not {names[0]}", names[0])', '(f"not {names[0]}", names[0])'),
    ("        if not n_texts:", "        if False:"),
    ('wanted = 1 if task == "binary" else count', "wanted = count"),
    ("if settings.labels not in ((), names):", "if False:"),
    ("        check_pairs(self.settings, self.model.config, given=pairs is not None)\n", ""),
)
