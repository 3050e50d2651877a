"""Deterministic simulation: the real library on simulated servers and disk, in virtual time, from one seed.

A seed gives a scenario: how many processes share a database, what their clients call, and what
fails when. The library itself runs unchanged: manager, strategies, guards, recovery and the
journal. Servers refuse, hang, lose acknowledgements, land writes late; caches forget or come back
with old contents; the disk loses what was not synced; processes are killed at any step and
restarted. In the end everything is healed, and a checker, which shares no code with the library,
judges what every client was told against what is stored.

>>> from octopus_async.testing.simulation import run_seed
>>> run_seed(1).failed
False

From a shell: ``python -m octopus_async.testing.simulation 1`` runs a seed and prints what failed;
``--shrink`` looks for the smallest scenario that still fails, ``--trace`` prints every fault and
event, ``--count 1000`` runs as many seeds from that one on, and ``--census`` says how often each
kind of fault struck in them.

To simulate a service of your own, make a `Scenario` by hand, or take one of a seed and change it.
"""

from octopus_async.testing.simulation.campaign import Tally, run_seeds
from octopus_async.testing.simulation.census import FAULTS
from octopus_async.testing.simulation.checker import check
from octopus_async.testing.simulation.history import Call, Final, History, Row, Terms, Violation
from octopus_async.testing.simulation.linearizability import is_linearizable
from octopus_async.testing.simulation.loop import Deadlock, Livelock, SimulationError, VirtualLoop
from octopus_async.testing.simulation.runner import Report, run, run_seed, shrink
from octopus_async.testing.simulation.scenario import Fault, Scenario, Setup, Step, scenario_of

__all__ = [
    "FAULTS",
    "Call",
    "Deadlock",
    "Fault",
    "Final",
    "History",
    "Livelock",
    "Report",
    "Row",
    "Scenario",
    "Setup",
    "SimulationError",
    "Step",
    "Tally",
    "Terms",
    "Violation",
    "VirtualLoop",
    "check",
    "is_linearizable",
    "run",
    "run_seed",
    "run_seeds",
    "scenario_of",
    "shrink",
]
