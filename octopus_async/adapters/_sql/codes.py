"""What the codes of database servers mean, whichever driver hands them on."""

from __future__ import annotations

from octopus_async.adapters._sql.faults import Codes

OUTDATED = "outdated"
"""No code of the server's: a statement was prepared before its table changed."""

MYSQL_CODES = Codes(
    record={
        1048,  # null where there may be none
        1062,  # duplicate in a unique index
        1118,  # row too large
        1216,  # foreign key: no such parent
        1217,  # foreign key: has children
        1264,  # out of range
        1265,  # truncated
        1292,  # wrong date or time
        1366,  # wrong value for the column, as text that its character set lacks
        1406,  # too long
        1451,  # foreign key: has children
        1452,  # foreign key: no such parent
        1586,  # duplicate, with the index's name
        1644,  # a trigger's own refusal
        1690,  # out of range
        3819,  # check, MySQL
        4025,  # check, MariaDB
    },
    schema={
        1054,  # unknown column
        1146,  # no such table
        1364,  # a column that the model does not know has no default
    },
    collisions={1020, 1205, 1213},  # changed since it was read, waited too long for a lock, deadlock
    undecided={1053, 1180, 1317, 1927, 1969, 3024, 4031},
    login={
        1044,  # not of this database
        1045,  # wrong user or password
        1698,  # a user who logs in without a password
    },
)

POSTGRES_CODES = Codes(
    record={
        "22001",  # too long
        "22003",  # out of range
        "22007",  # wrong date or time
        "22008",  # date or time out of range
        "22021",  # bytes that are no text
        "22P02",  # wrong value for the column
        "22P05",  # text that the database's encoding lacks, \u0000 in jsonb
        "23000",  # a constraint
        "23001",  # foreign key: has children
        "23502",  # null where there may be none
        "23503",  # foreign key: no such parent, or has children
        "23505",  # duplicate in a unique index
        "23514",  # check
        "23P01",  # exclusion
        "44000",  # a view's own check
        "54000",  # too long for an index, or too wide a row
        "P0001",  # a trigger's own refusal
    },
    schema={
        "3F000",  # no such schema
        "42703",  # unknown column
        "42804",  # a column of another type
        "42883",  # as above, where they are compared
        "428C9",  # a column that the database generates
        "42P01",  # no such table
        "54011",  # too many columns
    },
    collisions={
        "40001",  # changed since it was read
        "40P01",  # deadlock
        "55P03",  # waited too long for a lock
        OUTDATED,  # the driver has forgotten it by now
    },
    undecided={"40003", "57P01", "57P02"},
    starting={"57P03"},
    login={
        "28000",  # not this user, from this host, to this database
        "28P01",  # wrong password
    },
)

SQLITE_CODES = Codes(
    record={18, 19, 20},  # too big, constraint, mismatch
    schema={OUTDATED},
    collisions={5, 6},  # busy, locked
    undecided=set(),
    starting={14},  # the file can't be opened
)

MSSQL_CODES = Codes(
    record={
        "22001",  # too long
        "22003",  # out of range
        "22007",  # wrong date or time
        "22008",  # date or time out of range
        "22018",  # wrong value for the column
        "23000",  # a constraint
    },
    schema={"42S02", "42S22"},  # no such table, unknown column
    collisions={"40001", "HYT00"},  # deadlock, waited too long for a lock
    undecided={"HY008"},  # cancelled
)

ORACLE_CODES = Codes(
    record={
        1,  # duplicate in a unique index
        1400,  # null where there may be none
        1407,  # as above, in an update
        1438,  # out of range
        1461,  # too long
        2290,  # check
        2291,  # foreign key: no such parent
        2292,  # foreign key: has children
        12899,  # too long
    },
    schema={904, 942},  # unknown column, no such table
    collisions={54, 60, 8177},  # waited too long for a lock, deadlock, changed since it was read
    undecided={1013, 1089, 1092, 3113, 3114},  # interrupted, or shut down, perhaps after the commit
)
