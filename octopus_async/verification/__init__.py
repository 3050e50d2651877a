"""Compares the stores of a running system by version, explains each difference, and mends it if told to."""

from octopus_async.verification.difference import Difference
from octopus_async.verification.owed import JournalFolder, LiveJournal, Owed
from octopus_async.verification.report import Divergence, Report, State
from octopus_async.verification.verifier import Options, Verifier

__all__ = [
    "Difference",
    "Divergence",
    "JournalFolder",
    "LiveJournal",
    "Options",
    "Owed",
    "Report",
    "State",
    "Verifier",
]
