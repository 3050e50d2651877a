"""What the SQL adapters make of tables: their own, and those that were there before."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from itertools import product
from typing import cast

import pytest

from octopus_async.adapters._mysql_session import Result, Session
from octopus_async.backend import UnitAdapter
from octopus_async.errors import (
    ConstraintViolated,
    DuplicateRecord,
    InvalidRecord,
    RecordNotFound,
    SchemaMismatch,
)
from octopus_async.record import APPLIED, NO_VERSION, WITHHELD, Key, Mode, Record, Status
from octopus_async.schema import Column, Schema, Type
from octopus_async.testing.contract.subject import record_by
from octopus_async.testing.operations import ALL_TYPES
from tests.contract.sql import Books, Database, MySQLDatabase, PostgresDatabase, SQLiteDatabase, book, opened

LONG = "x" * 1024


@pytest.fixture(params=["sqlite_database", "mysql_database", "postgres_database"])
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def books(database: Database) -> AsyncGenerator[Books]:
    async with opened(database) as books:
        yield books


class TestCreatedTables:
    async def test_columns_have_the_types_of_their_fields(self, database: Database) -> None:
        schema = replace(ALL_TYPES, table=f"{database.schema.table}_types")
        adapter = database.adapter()
        await adapter.open()
        await adapter.prepare(schema, create=True)
        await adapter.close()
        assert await _types(database, schema.table) == (
            {
                "id": "TEXT", "title": "TEXT", "how_many": "INTEGER", "order": "INTEGER", "ratio": "REAL",
                "flag": "INTEGER", "raw": "BLOB", "at": "TEXT", "local": "TEXT", "day": "TEXT",
                "hour": "TEXT", "amount": "TEXT", "tag": "TEXT", "tree": "TEXT",
                "octopus_version": "TEXT", "octopus_born": "TEXT",
            }
            if database.kind == "sqlite"
            else {
                "id": "text", "title": "text", "how_many": "bigint", "order": "bigint",
                "ratio": "double precision", "flag": "boolean", "raw": "bytea",
                "at": "timestamp with time zone", "local": "timestamp without time zone", "day": "date",
                "hour": "time without time zone", "amount": "numeric", "tag": "uuid", "tree": "jsonb",
                "octopus_version": "text", "octopus_born": "text",
            }
            if database.kind == "postgres"
            else {
                "id": "varbinary(1024)", "title": "longtext", "how_many": "bigint", "order": "bigint",
                "ratio": "double", "flag": "tinyint", "raw": "longblob", "at": "datetime(6)",
                "local": "datetime(6)", "day": "date", "hour": "time(6)", "amount": "decimal(65,30)",
                "tag": "char(36)", "tree": "longtext",
                "octopus_version": "char(26)", "octopus_born": "char(26)",
            }
        )  # fmt: skip

    async def test_a_short_text_is_a_varchar_in_mysql(self, mysql_database: MySQLDatabase) -> None:
        async with opened(mysql_database):
            types = await _types(mysql_database, mysql_database.schema.table)
        assert types["title"] == "varchar(40)"

    async def test_in_postgres_too(self, postgres_database: PostgresDatabase) -> None:
        async with opened(postgres_database):
            types = await _types(postgres_database, postgres_database.schema.table)
        assert types["title"] == "character varying(40)"

    async def test_a_missing_table_is_named_with_the_statement_that_makes_it(
        self, database: Database
    ) -> None:
        adapter = database.adapter()
        await adapter.open()
        for _ in range(2):  # the side table, then the model's
            with pytest.raises(SchemaMismatch) as caught:
                await adapter.prepare(database.schema, create=False)
            assert adapter.name in str(caught.value)
            assert database.schema.model in str(caught.value)
            assert "create_tables=True" in str(caught.value)
            await database.run(str(caught.value).partition("run: ")[2])
            if database.schema.table in str(caught.value):
                break
        await adapter.prepare(database.schema, create=False)
        books = Books(adapter, database.schema)
        assert await books.apply(books.new(), books.new()) == [APPLIED] * 2
        await adapter.close()

    async def test_lacking_columns_are_named_with_the_statements_that_add_them(
        self, database: Database
    ) -> None:
        adapter = database.adapter()
        await adapter.open()
        await adapter.prepare(database.schema, create=True)
        added = (
            Column("price", "the price", Type.DECIMAL, nullable=False),
            Column("isbn", "isbn", Type.TEXT, nullable=True, max_length=13),
        )
        grown = replace(database.schema, columns=(*database.schema.columns, *added))
        with pytest.raises(SchemaMismatch, match="lacks the price, isbn") as caught:
            await adapter.prepare(grown, create=True)
        for name in (adapter.name, grown.table, grown.model):
            assert name in str(caught.value)
        await database.run(*str(caught.value).partition("run: ")[2].split("; "))
        await adapter.prepare(grown, create=False)
        await adapter.close()

    async def test_two_who_create_the_same_table_at_once_both_succeed(self, database: Database) -> None:
        adapters = [database.adapter() for _ in range(6)]
        await asyncio.gather(*[adapter.open() for adapter in adapters])
        await asyncio.gather(*[adapter.prepare(database.schema, create=True) for adapter in adapters])
        authors = [Books(adapter, database.schema) for adapter in adapters]
        outcomes = await asyncio.gather(*[author.apply(author.new(), author.new()) for author in authors])
        assert outcomes == [[APPLIED] * 2] * 6
        await asyncio.gather(*[adapter.close() for adapter in adapters])

    async def test_names_may_hold_anything(self, database: Database) -> None:
        names = [
            "order",
            "Select",
            "a b",
            'quo"te',
            "back`tick",
            "per%cent %s",
            "que?stion",
            "semi;colon",
            "ü",
        ]
        columns = tuple(Column(f"field{n}", name, Type.TEXT, nullable=True) for n, name in enumerate(names))
        schema = Schema("Odd", f"{database.schema.table} odd%\"'`", "the id", Type.TEXT, columns)
        adapter = database.adapter()
        await adapter.open()
        await adapter.prepare(schema, create=True)
        author = Books(adapter, schema)
        first = author.create(author.key(), {f"field{n}": name for n, name in enumerate(names)})
        second = author.create(author.key(), dict.fromkeys(first.fields or {}))
        assert await adapter.apply([first], Mode.LIVE) == [APPLIED]
        assert (
            await adapter.apply([second, author.update(first.key, first.fields or {})], Mode.LIVE)
            == [APPLIED] * 2
        )
        assert await adapter.apply([author.update(first.key, first.fields or {})], Mode.LIVE) == [APPLIED]
        found = await author.find(first.key)
        assert found is not None
        assert found.fields == first.fields
        assert len([record async for record in adapter.scan("Odd", batch=1)]) == 2
        assert await adapter.apply([author.delete(first.key)], Mode.LIVE) == [APPLIED]
        await adapter.close()

    async def test_a_model_that_was_not_prepared_is_a_schema_mismatch(self, books: Books) -> None:
        with pytest.raises(SchemaMismatch, match="not prepared"):
            await books.adapter.read([Key("Stranger", "1")])
        with pytest.raises(SchemaMismatch, match="not prepared"):
            await books.adapter.apply([books.new()._replace(key=Key("Stranger", "1"))], Mode.LIVE)

    @pytest.mark.parametrize("change", ["DROP TABLE {}", "ALTER TABLE {} RENAME COLUMN pages TO leaves"])
    async def test_a_table_that_changes_meanwhile_is_a_schema_mismatch(
        self, books: Books, database: Database, change: str
    ) -> None:
        created = books.new()
        await books.apply(created)
        await database.run(change.format(database.schema.table))
        for call in (
            books.find(created.key),
            books.apply(books.new()),
            books.apply(books.new(), books.new(), mode=Mode.REPLAY),
        ):
            with pytest.raises(SchemaMismatch) as caught:
                await call
            assert caught.value.alive
            assert not caught.value.sent

    async def test_the_side_table_of_a_missing_schema_is_not_made_by_a_probe(
        self, database: Database
    ) -> None:
        adapter = database.adapter()
        await adapter.open()
        with pytest.raises(SchemaMismatch, match="octopus_versions"):
            await adapter.probe()
        await adapter.close()


class TestMappedTables:
    """Tables without our columns: their versions live in the side table."""

    @pytest.fixture
    async def mapped(self, database: Database) -> AsyncGenerator[Books]:
        table = database.schema.table
        await database.run(
            f"CREATE TABLE {table} (book_no VARCHAR(36) PRIMARY KEY, name VARCHAR(40) NOT NULL UNIQUE, "
            "pages INT, shelf VARCHAR(10) DEFAULT 'A')",
            f"INSERT INTO {table} VALUES ('old-1', 'Emma', 474, 'A'), ('old-2', 'Silas', NULL, 'A')",
        )
        title = Column("title", "name", Type.TEXT, nullable=False)
        pages = Column("pages", "pages", Type.INTEGER, nullable=True)
        database.schema = replace(database.schema, id_column="book_no", columns=(title, pages))
        async with opened(database) as books:
            yield books

    async def test_a_row_that_was_there_before_is_read_without_a_version(self, mapped: Books) -> None:
        key = Key(mapped.model, "old-1")
        assert await mapped.find(key) == Record(key, NO_VERSION, NO_VERSION, book("Emma", 474))

    async def test_a_write_gives_it_a_version(self, mapped: Books, database: Database) -> None:
        update = mapped.update(Key(mapped.model, "old-1"), book("Emma", 500))
        assert await mapped.apply(update) == [APPLIED]
        assert await mapped.find(update.key) == Record(update.key, update.version, NO_VERSION, update.fields)
        rows = await database.run(f"SELECT pages, shelf FROM {database.schema.table} WHERE book_no = 'old-1'")
        assert rows == [(500, "A")]
        (late,) = await mapped.apply(mapped.update(update.key, book("late"), version="0" * 26))
        assert (late.status, late.stored) == (Status.SUPERSEDED, update.version)

    async def test_a_life_from_create_to_create(self, mapped: Books) -> None:
        created = mapped.new(title="first")
        assert await mapped.apply(created) == [APPLIED]
        assert await mapped.find(created.key) == record_by(created)
        (second,) = await mapped.apply(mapped.new(created.key, "second"))
        assert isinstance(second.error, DuplicateRecord)
        gone = mapped.delete(created.key)
        assert await mapped.apply(gone) == [APPLIED]
        assert await mapped.find(created.key) is None
        (late,) = await mapped.apply(created, mode=Mode.REPLAY)
        assert (late.status, late.stored) == (Status.SUPERSEDED, gone.version)
        assert await mapped.apply(mapped.new(created.key, "again")) == [APPLIED]

    async def test_a_batch_with_one_bad_record(self, mapped: Books) -> None:
        good = [mapped.new(title=f"good {number}") for number in range(5)]
        bad = mapped.new(title="Emma")
        outcomes = await mapped.apply(*good, bad)
        assert outcomes[:5] == [APPLIED] * 5
        assert isinstance(outcomes[5].error, ConstraintViolated)
        assert await mapped.find(bad.key) is None

    async def test_what_others_delete_counts_as_deleted(self, mapped: Books, database: Database) -> None:
        created = mapped.new()
        await mapped.apply(created)
        await database.run(f"DELETE FROM {database.schema.table} WHERE book_no = '{created.key.id}'")
        assert await mapped.find(created.key) is None
        (late,) = await mapped.apply(created, mode=Mode.REPLAY)
        assert late is APPLIED
        assert await mapped.find(created.key) is None
        (update,) = await mapped.apply(mapped.update(created.key, book()))
        assert update.status is Status.REJECTED

    async def test_a_scan_lists_rows_with_and_without_version(self, mapped: Books) -> None:
        first, second = mapped.new(title="1"), mapped.new(title="2")
        await mapped.apply(first, second)
        gone = mapped.delete(first.key)
        await mapped.apply(gone)
        found = {
            record.key.id: (record.version, record.fields is None) for record in await mapped.scan(batch=1)
        }
        assert found == {
            "old-1": (NO_VERSION, False),
            "old-2": (NO_VERSION, False),
            second.key.id: (second.version, False),
            first.key.id: (gone.version, True),
        }
        assert [record.key for record in await mapped.scan(after=first.version)] == [second.key, first.key]

    async def test_ids_that_the_collation_takes_for_one_are_told_apart(
        self, mapped: Books, database: Database
    ) -> None:
        (upper,) = await mapped.apply(mapped.update(Key(mapped.model, "OLD-1"), book("upper")))
        assert upper.status is Status.REJECTED
        assert await mapped.find(Key(mapped.model, "OLD-1")) is None
        assert await mapped.apply(mapped.delete(Key(mapped.model, "OLD-1"))) == [APPLIED]
        assert await mapped.find(Key(mapped.model, "old-1")) is not None
        (created,) = await mapped.apply(mapped.new(Key(mapped.model, "OLD-1 "), "upper"))
        if database.kind == "mysql":  # its index takes them for one, and refuses
            assert isinstance(created.error, ConstraintViolated)
        else:
            assert created is APPLIED
        found = await mapped.find(Key(mapped.model, "old-1"))
        assert found is not None
        assert found.fields == book("Emma", 474)


class TestRowsOfOthers:
    async def test_a_row_without_version_is_read_updated_and_deleted(
        self, books: Books, database: Database
    ) -> None:
        await database.run(f"INSERT INTO {database.schema.table} (id, title) VALUES ('a', 'x'), ('b', 'x')")
        a, b = Key(books.model, "a"), Key(books.model, "b")
        assert await books.find(a) == Record(a, NO_VERSION, NO_VERSION, book("x"))
        update = books.update(a, book("y"))
        assert await books.apply(update) == [APPLIED]
        assert await books.find(a) == Record(a, update.version, NO_VERSION, book("y"))
        (create,) = await books.apply(books.new(b))
        assert isinstance(create.error, DuplicateRecord)
        assert await books.apply(books.update(b, book("z"), if_version=NO_VERSION)) == [APPLIED]
        assert await books.apply(books.delete(b)) == [APPLIED]
        assert await books.find(b) is None

    async def test_a_scan_from_the_start_lists_it(self, books: Books, database: Database) -> None:
        created = books.new()
        await books.apply(created)
        await database.run(f"INSERT INTO {database.schema.table} (id, title) VALUES ('a', 'x')")
        assert {record.key.id for record in await books.scan()} == {"a", created.key.id}
        assert [record.key for record in await books.scan(after="0" * 26)] == [created.key]

    async def test_columns_of_other_types_are_read_as_well_as_they_can(
        self, mysql_database: MySQLDatabase
    ) -> None:
        schema = replace(ALL_TYPES, table=mysql_database.schema.table)
        await mysql_database.run(
            f"CREATE TABLE {schema.table} (id BIGINT PRIMARY KEY, title VARBINARY(20), "
            "how_many DECIMAL(20,0), `order` SMALLINT, ratio DECIMAL(10,2), flag TINYINT(1), "
            "raw VARBINARY(9), at TIMESTAMP(3) NULL, `local` DATETIME, `day` DATE, "
            "hour TIME, amount DECIMAL(9,2), tag VARCHAR(36), tree JSON)",
            "SET time_zone = '+05:00'",
            f"INSERT INTO {schema.table} VALUES (7, 'text', 5, 6, 1.5, 1, 'abc', '2026-01-31 17:00:00.5', "
            "'2026-01-31 12:00:00', '2026-01-31', '12:00:00', 1.50, "
            "'0190B3B0-0000-7000-8000-000000000001', '{\"a\": [1]}')",
        )
        mysql_database.schema = schema
        async with opened(mysql_database) as books:
            found = await books.find(Key(schema.model, "7"))
        assert found is not None
        assert {**(found.fields or {}), "count": None} == {
            "title": "text", "count": None, "order": 6, "ratio": 1.5, "flag": True, "raw": "YWJj",
            "at": "2026-01-31T12:00:00.500000Z", "local": "2026-01-31T12:00:00.000000", "day": "2026-01-31",
            "hour": "12:00:00.000000", "amount": "1.5", "tag": "0190B3B0-0000-7000-8000-000000000001",
            "tree": {"a": [1]},
        }  # fmt: skip

    @pytest.mark.parametrize("value", ["'no number'", "'12'", "x'ff'", "'[1'"])
    async def test_a_value_that_fits_no_type_does_not_stop_the_others(
        self, sqlite_database: SQLiteDatabase, value: str
    ) -> None:
        columns = ", ".join(
            column.name if column.name != "order" else '"order"' for column in ALL_TYPES.columns
        )
        sqlite_database.schema = ALL_TYPES
        await sqlite_database.run(
            f"CREATE TABLE {ALL_TYPES.table} (id TEXT PRIMARY KEY, {columns}, octopus_version, octopus_born)",
            f"INSERT INTO {ALL_TYPES.table} VALUES ('odd', {', '.join([value] * 13)}, NULL, NULL)",
        )
        async with opened(sqlite_database) as books:
            well = books.create(Key(ALL_TYPES.model, "well"), {"title": "well"})
            assert await books.apply(well) == [APPLIED]
            odd, found = await books.adapter.read([Key(ALL_TYPES.model, "odd"), well.key])
        assert isinstance(found, Record)
        assert found.version == well.version
        assert isinstance(odd, Record)
        assert all(isinstance(item, str | int | float | bool) for item in (odd.fields or {}).values())


class TestTablesOfOthersWithOurColumns:
    @pytest.fixture
    async def theirs(self, database: Database) -> AsyncGenerator[Books]:
        key, nocase, refuse = {
            "mysql": ("BIGINT AUTO_INCREMENT", "", "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'closed'"),
            "sqlite": ("INTEGER", "COLLATE NOCASE", "BEGIN SELECT RAISE(ABORT, 'closed'); END"),
            "postgres": ("BIGSERIAL", "COLLATE nocase", "EXECUTE FUNCTION refuse()"),
        }[database.kind]
        if database.kind == "postgres":
            await database.run(
                "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'closed'; END $$",
            )
        await database.run(
            f"CREATE TABLE books (n {key} PRIMARY KEY, id VARCHAR(36) {nocase} UNIQUE, "
            "title VARCHAR(40) UNIQUE, pages INT, octopus_version CHAR(26), octopus_born CHAR(26))",
            "INSERT INTO books (id, title) VALUES ('a', 'Emma'), ('b', 'Silas')",
            f"CREATE TRIGGER closed BEFORE INSERT ON books FOR EACH ROW {refuse}",
        )
        async with opened(database) as books:
            yield books

    async def test_a_batch_of_updates_inserts_nothing(self, theirs: Books) -> None:
        for mode in Mode:
            updates = [theirs.update(Key("Book", id_), book(f"new {id_}")) for id_ in "ab"]
            assert await theirs.apply(*updates, mode=mode) == [APPLIED] * 2
            answers = await theirs.adapter.read([update.key for update in updates])
            assert [answer.fields for answer in answers if isinstance(answer, Record)] == [
                book("new a"), book("new b"),
            ]  # fmt: skip

    async def test_what_a_trigger_refuses_is_the_records_fault(self, theirs: Books) -> None:
        (alone,) = await theirs.apply(theirs.new())
        update, batched = await theirs.apply(theirs.update(Key("Book", "a"), book("y")), theirs.new())
        assert update is APPLIED
        for outcome in (alone, batched):
            assert isinstance(outcome.error, ConstraintViolated)
            assert "closed" in str(outcome.error)

    async def test_an_update_touches_no_id_that_only_the_collation_takes_for_its_own(
        self, theirs: Books
    ) -> None:
        for update in (
            theirs.update(Key("Book", "A"), book("x")),
            theirs.update(Key("Book", "a "), book("x")),
        ):
            (outcome,) = await theirs.apply(update)
            assert isinstance(outcome.error, RecordNotFound)
            (outcome,) = await theirs.apply(update, mode=Mode.MIRROR)
            assert isinstance(outcome.error, ConstraintViolated)
        found = await theirs.find(Key("Book", "a"))
        assert found is not None
        assert found.fields == book("Emma")


class TestRecordsThatAreRefused:
    async def test_each_alone_in_any_batch(self, database: Database) -> None:
        async with opened(database) as books:
            await database.run(f"CREATE UNIQUE INDEX unique_title ON {database.schema.table} (title)")
            first = books.new(title="taken")
            await books.apply(first)
            bad = [
                books.new(title="taken"),
                books.create(books.key(), {"title": None, "pages": 1}),
                books.create(books.key(), {"title": ["no text"], "pages": 1}),
                books.new()._replace(fields={"title": "lone \ud800 surrogate", "pages": 1}),
                books.create(books.key(), {"title": "too many pages", "pages": 2**63}),
                books.create(Key(books.model, "long" * 500), book("long id")),
                books.create(Key(books.model, "\udcff"), book("no text for an id")),
            ]
            if database.kind != "sqlite":
                bad.append(books.new(title="long" * 11))
            for mode in Mode:
                for wrong in bad:
                    good = [books.new(title=books.key().id) for _ in range(4)]
                    (alone,) = await books.apply(wrong, mode=mode)
                    outcomes = await books.apply(*good[:2], wrong, *good[2:], mode=mode)
                    for outcome in (alone, outcomes.pop(2)):
                        assert isinstance(outcome.error, ConstraintViolated | InvalidRecord)
                        assert outcome.status is Status.REJECTED
                    assert outcomes == [APPLIED] * 4
                    assert await books.find(wrong.key) is None

    async def test_an_update_too(self, database: Database) -> None:
        async with opened(database) as books:
            await database.run(f"CREATE UNIQUE INDEX unique_title ON {database.schema.table} (title)")
            first = books.new(title="first")
            await books.apply(first, books.new(title="taken"))
            update = books.update(first.key, book("taken"))
            (alone,) = await books.apply(update)
            batched, other = await books.apply(update, books.new(title="another"), mode=Mode.MIRROR)
            assert isinstance(alone.error, ConstraintViolated)
            assert isinstance(batched.error, ConstraintViolated)
            assert other is APPLIED
            assert await books.find(first.key) == record_by(first)

    async def test_one_stops_all_of_a_unit(self, database: Database) -> None:
        async with opened(database) as books:
            await database.run(f"CREATE UNIQUE INDEX unique_title ON {database.schema.table} (title)")
            first = books.new(title="taken")
            await books.apply(first)
            bad = [
                books.new(title="taken"),
                books.create(books.key(), {"title": None, "pages": 1}),
                books.create(books.key(), {"title": "too many pages", "pages": 2**63}),
            ]
            adapter = cast("UnitAdapter", books.adapter)
            for wrong, mode in product(bad, (Mode.LIVE, Mode.REPLAY)):
                good = [books.new(title=books.key().id) for _ in range(2)]
                outcomes = await adapter.apply_unit([good[0], wrong, good[1]], mode)
                assert [outcomes[0], outcomes[2]] == [WITHHELD] * 2
                assert isinstance(outcomes[1].error, ConstraintViolated | InvalidRecord)
                assert [await books.find(it.key) for it in (*good, wrong)] == [None] * 3

    async def test_a_unit_may_hand_on_what_has_to_be_unique(self, database: Database) -> None:
        async with opened(database) as books:
            await database.run(f"CREATE UNIQUE INDEX unique_title ON {database.schema.table} (title)")
            old = books.new(title="handed on")
            await books.apply(old)
            new = books.new(title="handed on")
            unit = [new, books.delete(old.key, born=old.born, if_version=old.version)]
            assert await cast("UnitAdapter", books.adapter).apply_unit(unit, Mode.LIVE) == [APPLIED] * 2
            assert await books.find(old.key) is None
            assert await books.find(new.key) == record_by(new)

    async def test_one_bad_record_costs_a_batch_few_exchanges(
        self, mysql_database: MySQLDatabase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        packets = 0
        really = Session._exchange

        async def count(session: Session, packet: bytes, results: list[Result]) -> None:
            nonlocal packets
            packets += 1
            await really(session, packet, results)

        async with opened(mysql_database) as books:
            await mysql_database.run("CREATE UNIQUE INDEX unique_title ON books (title)")
            await books.apply(books.new(title="taken"))
            for mode in (Mode.LIVE, Mode.REPLAY):
                batch = [books.new(title=books.key().id) for _ in range(500)]
                batch[321] = books.new(title="taken")
                packets = 0
                monkeypatch.setattr(Session, "_exchange", count)
                outcomes = await books.apply(*batch, mode=mode)
                assert isinstance(outcomes.pop(321).error, ConstraintViolated)
                assert outcomes == [APPLIED] * 499
                assert packets < 40

    async def test_a_refused_record_leaves_no_trace(self, database: Database) -> None:
        async with opened(database) as books:
            await database.run(f"CREATE UNIQUE INDEX unique_title ON {database.schema.table} (title)")
            await books.apply(books.new(title="taken"))
            refused = books.new(title="taken")
            await books.apply(refused, books.new(), mode=Mode.REPLAY)
            side = await database.run(f"SELECT COUNT(*) FROM octopus_versions WHERE id = '{refused.key.id}'")
            assert side == [(0,)]
            assert await books.apply(books.new(refused.key, "free")) == [APPLIED]

    async def test_parents_and_children_may_come_in_one_batch(self, database: Database) -> None:
        parents = replace(database.schema, model="Parent", table=f"{database.schema.table}_parents")
        children = Schema(
            "Child", f"{database.schema.table}_children", "id", Type.TEXT,
            (Column("parent", "parent", Type.TEXT, nullable=True),), constrained=True,
        )  # fmt: skip
        id_type = "VARBINARY(1024)" if database.kind == "mysql" else "TEXT"
        adapter = database.adapter()
        await adapter.open()
        await adapter.prepare(parents, create=True)
        await database.run(
            f"CREATE TABLE {children.table} (id {id_type} PRIMARY KEY, parent {id_type}, "
            f"octopus_version CHAR(26), octopus_born CHAR(26), "
            f"FOREIGN KEY (parent) REFERENCES {parents.table} (id))"
        )
        await adapter.prepare(children, create=True)
        author, heir = Books(adapter, parents), Books(adapter, children)
        parent = author.new()
        child = heir.create(heir.key(), {"parent": parent.key.id})
        orphan = heir.create(heir.key(), {"parent": "nobody"})
        *well, ill = await author.apply(parent, child, orphan, mode=Mode.REPLAY)
        assert well == [APPLIED] * 2
        assert isinstance(ill.error, ConstraintViolated)
        (kept,) = await author.apply(author.delete(parent.key))
        assert isinstance(kept.error, ConstraintViolated)
        assert await author.find(parent.key) is not None
        assert await author.apply(heir.delete(child.key), author.delete(parent.key)) == [APPLIED] * 2
        await adapter.close()

    async def test_a_deferred_constraint_refuses_the_one_at_fault(
        self, sqlite_database: SQLiteDatabase
    ) -> None:
        async with opened(sqlite_database) as books:
            schema = Schema(
                "Child", "children", "id", Type.TEXT, (Column("p", "p", Type.TEXT, nullable=True),)
            )
            await sqlite_database.run(
                "CREATE TABLE children (id TEXT PRIMARY KEY, p TEXT REFERENCES books (id) "
                "DEFERRABLE INITIALLY DEFERRED, octopus_version TEXT, octopus_born TEXT)"
            )
            await books.adapter.prepare(schema, create=False)
            heir = Books(books.adapter, schema)
            parent = books.new()
            child, orphan = (heir.create(heir.key(), {"p": id_}) for id_ in (parent.key.id, "nobody"))
            assert await books.apply(child, parent, mode=Mode.REPLAY) == [APPLIED] * 2
            other = books.new()
            good, bad = await books.apply(other, orphan)
            assert good is APPLIED
            assert isinstance(bad.error, ConstraintViolated)
            (alone,) = await books.apply(orphan)
            assert isinstance(alone.error, ConstraintViolated)
            assert await heir.find(orphan.key) is None


class TestScans:
    async def test_a_record_that_was_created_again_is_listed_once_and_alive(self, books: Books) -> None:
        first, other = books.new(), books.new()
        await books.apply(first, other)
        deleted = [books.delete(operation.key) for operation in (first, other)]
        await books.apply(*deleted)
        again = books.new(first.key)
        await books.apply(again)
        found = await books.scan(batch=1)
        assert [(record.key, record.version, record.fields) for record in found] == [
            (again.key, again.version, again.fields),
            (other.key, deleted[1].version, None),
        ]


class TestBatches:
    async def test_thousands_of_keys_are_read_in_several_statements(self, books: Books) -> None:
        created = [books.new() for _ in range(1200)]
        assert await books.apply(*created) == [APPLIED] * 1200
        answers = await books.adapter.read([operation.key for operation in created])
        assert [answer.key for answer in answers if isinstance(answer, Record)] == [op.key for op in created]

    async def test_a_batch_of_several_models(self, books: Books, database: Database) -> None:
        other = replace(database.schema, model="Other", table=f"{database.schema.table}_other")
        await books.adapter.prepare(other, create=True)
        author = Books(books.adapter, other)
        mine, theirs = books.new(), author.new()
        assert await books.apply(mine, theirs, books.new(), author.new()) == [APPLIED] * 4
        answers = await books.adapter.read([theirs.key, mine.key, Key("Other", mine.key.id)])
        assert [answer and answer.key for answer in answers if not answer or isinstance(answer, Record)] == [
            theirs.key, mine.key, None,
        ]  # fmt: skip

    async def test_an_update_that_changes_no_value_is_applied(self, books: Books) -> None:
        created = books.new()
        await books.apply(created)
        update = books.update(created.key, created.fields or {})
        assert await books.apply(update) == [APPLIED]
        assert await books.apply(update) == [APPLIED]

    async def test_an_id_that_no_record_can_have_is_not_found(self, database: Database) -> None:
        database.schema = replace(database.schema, id_type=Type.INTEGER)
        async with opened(database) as books:
            keys = [Key(books.model, id_) for id_ in ("1", "01", "+1", "x", "", "1 ", "9" * 19, "1.0", "١")]
            (created, *refused) = await books.apply(*[books.new(key) for key in keys])
            assert created is APPLIED
            assert all(isinstance(outcome.error, InvalidRecord) for outcome in refused)
            found, *absent = await books.adapter.read(keys)
            assert found is not None
            assert absent == [None] * 8


async def _types(database: Database, table: str) -> dict[str, str]:
    if database.kind == "sqlite":
        return dict(await database.run(f"SELECT name, type FROM pragma_table_info('{table}')"))
    if database.kind == "postgres":
        query = f"SELECT column_name, data_type FROM information_schema.columns WHERE table_name = '{table}'"
        rows = await database.run(query)
        lengths = await database.run(
            query.replace("data_type", "data_type || '(' || character_maximum_length || ')'")
        )
        return dict(rows) | {name: type_ for name, type_ in lengths if type_ is not None}
    rows = await database.run(f"SHOW COLUMNS FROM {table}")
    return {row[0]: re.sub(r"^(bigint|tinyint)\(\d+\)", r"\1", row[1]) for row in rows}
