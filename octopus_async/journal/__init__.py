"""Where operations wait, durably, for backends that could not take them."""

from octopus_async.journal.file import FileJournal

__all__ = ["FileJournal"]
