"""Planted bugs: named mutations of the library, each of which the simulation or the tests must find.

This is the test of the tests. A mutation is a function that changes the library in the running
interpreter; it is only ever applied in a process of its own. ``python -m
octopus_async.testing.mutants`` plants one after the other and says what found each.
"""

from octopus_async.testing.mutants.catalogue import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant"]
