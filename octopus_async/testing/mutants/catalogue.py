"""The mutations by name: what each breaks, and where it has to be looked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from octopus_async.testing.mutants import caches, journals, lives, recoveries, writes

SIMULATION = "simulation"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A planted bug.

    Attributes:
        name: what it does, in a few words.
        plant: changes the library in this process.
        hunted_by: `SIMULATION`, or the tests (as pytest takes them) that have to fail.
    """

    name: str
    plant: Callable[[], None]
    hunted_by: tuple[str, ...] = (SIMULATION,)


_UNIT = "tests/unit"

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant
    for mutant in (
        Mutant("acknowledge-before-fsync", journals.acknowledge_before_fsync),
        Mutant("no-version-guard", writes.no_version_guard),
        Mutant("tombstone-forgotten", writes.tombstone_forgotten),
        Mutant(
            "cached-tombstone-forgotten",
            caches.cached_tombstone_forgotten,
            ("tests/simulation/test_regressions.py", SIMULATION),
        ),
        Mutant("rejections-counted-as-failures", writes.rejections_counted_as_failures),
        Mutant("permit-never-freed", recoveries.permit_never_freed, (SIMULATION, f"{_UNIT}/test_breaker.py")),
        Mutant("operations-of-a-key-reordered", writes.operations_of_a_key_reordered),
        Mutant("first-state-replayed", journals.first_state_replayed),
        Mutant("unknown-treated-as-failed", writes.unknown_treated_as_failed),
        Mutant("compensation-missing", writes.compensation_missing),
        Mutant("dead-letter-blocks", recoveries.dead_letter_blocks),
        Mutant(
            "lines-without-checksum",
            journals.lines_without_checksum,
            (f"{_UNIT}/test_journal_segments.py", f"{_UNIT}/test_journal_recovery.py", SIMULATION),
        ),
        Mutant("lock-not-taken", journals.lock_not_taken),
        Mutant(
            "cancelled-waiter-aborts-its-group",
            journals.cancelled_waiter_aborts_its_group,
            (f"{_UNIT}/test_journal_durability.py", SIMULATION),
        ),
        Mutant(
            "connection-reused-after-cancellation",
            caches.connection_reused_after_cancellation,
            ("tests/adversity/test_memcache_hazards.py",),
        ),
        Mutant("read-only-taken-for-a-rejection", writes.read_only_taken_for_a_rejection),
        Mutant(
            "ping-taken-for-write-health",
            recoveries.ping_taken_for_write_health,
            (f"{_UNIT}/test_guard.py", SIMULATION),
        ),
        Mutant("clock-below-its-ceiling", journals.clock_below_its_ceiling),
        Mutant("caches-not-touched-at-replay", recoveries.caches_not_touched_at_replay),
        Mutant(
            "stale-fill-for-its-lease-is-ignored",
            caches.lease_ignored,
            (f"{_UNIT}/test_memory.py", SIMULATION),
        ),
        Mutant("unit-split-by-coalescing", journals.unit_split, (f"{_UNIT}/test_journal_overlay.py",)),
        Mutant("receipt-never-settled", journals.settled_forgotten, (f"{_UNIT}/test_writes.py",)),
        Mutant("locks-of-keys-not-taken", writes.locks_of_keys_not_taken),
        Mutant("overlay-not-read", caches.overlay_not_read),
        Mutant("debts-forgotten", caches.debts_forgotten),
        Mutant("nothing-where-nobody-could-look", caches.nothing_where_nobody_could_look),
        Mutant(
            "search-joined-after-a-write",
            caches.search_joined_after_a_write,
            (f"{_UNIT}/test_reads.py", SIMULATION),
        ),
        Mutant("caller-cancels-the-write", writes.caller_cancels_the_write),
        Mutant("deadline-not-kept-in-the-queue", writes.deadline_not_kept_in_the_queue),
        Mutant("backlog-overtaken", writes.backlog_overtaken),
        Mutant("condition-dropped", writes.condition_dropped),
        Mutant("settled-before-applied", recoveries.settled_before_applied),
        Mutant("replayed-as-live", recoveries.replayed_as_live),
        Mutant("replica-before-its-primary", recoveries.replica_before_its_primary),
        Mutant("debt-of-a-replica-forgotten", writes.replicas_debt_forgotten),
        Mutant("updates-shown-before-they-are-taken", writes.updates_shown_before_they_are_taken),
        Mutant("child-keeps-the-lock", lives.child_keeps_the_lock),
        Mutant("child-goes-on", lives.child_goes_on),
        Mutant("dead-processes-journals-left", lives.dead_processes_journals_left),
        Mutant(
            "failed-fsync-tried-again",
            lives.failed_fsync_tried_again,
            (f"{_UNIT}/test_journal_durability.py", SIMULATION),
        ),
        Mutant(
            "unit-written-apart", lives.unit_written_apart, (SIMULATION, f"{_UNIT}/test_journal_recovery.py")
        ),
        Mutant("coalesced-past-what-decides", lives.coalesced_past_what_decides),
        Mutant(
            "overlay-goes-before-caches-are-told",
            lives.overlay_goes_before_caches_are_told,
            (f"{_UNIT}/test_recovery.py", SIMULATION),
        ),
        Mutant(
            "rejections-never-pause-the-replay",
            lives.rejections_never_pause_the_replay,
            (f"{_UNIT}/test_recovery.py",),
        ),
        Mutant("expired-entries-replayed", lives.expired_entries_replayed, (f"{_UNIT}/test_recovery.py",)),
        Mutant(
            "late-answers-move-the-breaker",
            lives.late_answers_move_the_breaker,
            (f"{_UNIT}/test_breaker.py",),
        ),
        Mutant("half-open-admits-everybody", lives.half_open_admits_everybody, (f"{_UNIT}/test_breaker.py",)),
        Mutant(
            "lease-ignored-by-memcache",
            caches.lease_ignored_by_memcache,
            ("tests/contract/test_contract.py -k memcache",),
        ),
        Mutant(
            "filled-below-the-floor",
            caches.filled_below_the_floor,
            ("tests/contract/test_contract.py -k memory",),
        ),
        Mutant(
            "value-of-another-key-taken",
            caches.value_of_another_key_taken,
            (f"{_UNIT}/test_cachevalue.py", "tests/adversity/test_memcache_hazards.py"),
        ),
        Mutant(
            "read-only-mariadb-taken-for-a-rejection",
            writes.read_only_mariadb_taken_for_a_rejection,
            ("tests/adversity/test_mysql_servers.py -k read_only",),
        ),
        Mutant(
            "read-only-postgres-taken-for-a-rejection",
            writes.read_only_postgres_taken_for_a_rejection,
            ("tests/adversity/test_postgres_servers.py -k read_only",),
        ),
        Mutant(
            "full-disk-taken-for-a-rejection",
            writes.full_disk_taken_for_a_rejection,
            ("tests/adversity/test_sqlite_hazards.py -k full_disk",),
        ),
        Mutant("unknown-taken-for-applied", writes.unknown_taken_for_applied),
        Mutant(
            "condition-accepted-unasked",
            writes.condition_accepted_unasked,
            (f"{_UNIT}/test_writes.py", SIMULATION),
        ),
        Mutant(
            "what-is-noted-not-waited-for",
            journals.noted_ignored,
            ("tests/crash/test_journal_regressions.py",),
        ),
        Mutant(
            "unreadable-taken-for-torn",
            journals.unreadable_taken_for_torn,
            ("tests/crash/test_journal_regressions.py", SIMULATION),
        ),
        Mutant(
            "successor-compares-nothing",
            journals.successor_compares_nothing,
            (SIMULATION, f"{_UNIT}/test_catchup.py"),
        ),
        Mutant(
            "anybodys-files-taken",
            journals.anybodys_files_taken,
            (f"{_UNIT}/test_journal_processes.py -k j12",),
        ),
    )
}
