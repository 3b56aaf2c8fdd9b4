"""The rules by which figures become findings, each a function of the history of a run.

A rule returns a finding, or None.  It must hold its tongue while it is not sure: a finding on a
healthy run costs more trust than one that comes twenty updates later.
"""

from collections.abc import Callable, Sequence

from minibert.doctor.findings import Finding
from minibert.doctor.history import History
from minibert.doctor.rules import contract, outcome, updates, validation

Rule = Callable[[History], Finding | None]

AFTER_UPDATES: Sequence[Rule] = (*contract.RULES, *updates.RULES, *outcome.RULES)
AFTER_EVALUATION: Sequence[Rule] = validation.RULES
