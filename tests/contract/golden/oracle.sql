-- create the side table
CREATE TABLE octopus_versions (
model VARCHAR2(255 CHAR) NOT NULL,
id VARCHAR2(1024 CHAR) NOT NULL,
version VARCHAR2(26 CHAR) NOT NULL,
born VARCHAR2(26 CHAR) NOT NULL,
deleted SMALLINT NOT NULL,
PRIMARY KEY (model, id)
)

-- create a table
CREATE TABLE contract_records (
id VARCHAR2(1024 CHAR) NOT NULL,
title CLOB,
how_many NUMBER(19),
"order" NUMBER(19),
ratio BINARY_DOUBLE,
flag BOOLEAN,
"raw" BLOB,
at TIMESTAMP WITH TIME ZONE,
local TIMESTAMP,
day DATE,
hour VARCHAR2(15 CHAR),
amount VARCHAR2(67 CHAR),
tag VARCHAR2(36 CHAR),
tree CLOB,
octopus_version VARCHAR2(26 CHAR),
octopus_born VARCHAR2(26 CHAR),
PRIMARY KEY (id)
)

-- take locks
SELECT octopus_versions.id
FROM octopus_versions
WHERE octopus_versions.model = :model_1 AND octopus_versions.id IN (__[POSTCOMPILE_ids]) ORDER BY octopus_versions.id FOR UPDATE

-- which locks are there
SELECT octopus_versions.id
FROM octopus_versions
WHERE octopus_versions.model = :model_1

-- what the side table has
SELECT octopus_versions.id, octopus_versions.version, octopus_versions.born, octopus_versions.deleted
FROM octopus_versions
WHERE octopus_versions.model = :model AND octopus_versions.id IN (__[POSTCOMPILE_ids])

-- tombstones
SELECT octopus_versions.id, octopus_versions.version, octopus_versions.born
FROM octopus_versions
WHERE octopus_versions.model = :model AND octopus_versions.deleted = :deleted_1 AND octopus_versions.id IN (__[POSTCOMPILE_ids])

-- a page of tombstones
SELECT octopus_versions.id, octopus_versions.version, octopus_versions.born
FROM octopus_versions
WHERE octopus_versions.model = :model AND octopus_versions.deleted = :deleted_1 AND octopus_versions.version > :after AND octopus_versions.id > :last ORDER BY octopus_versions.id
FETCH FIRST :limit ROWS ONLY

-- read, ours
SELECT contract_records.id, contract_records.title, contract_records.how_many, contract_records."order", contract_records.ratio, contract_records.flag, contract_records."raw", contract_records.at, contract_records.local, contract_records.day, contract_records.hour, contract_records.amount, contract_records.tag, contract_records.tree, contract_records.octopus_version, contract_records.octopus_born
FROM contract_records
WHERE contract_records.id IN (__[POSTCOMPILE_ids])

-- what is stored, ours
SELECT contract_records.id, contract_records.octopus_version, contract_records.octopus_born
FROM contract_records
WHERE contract_records.id IN (__[POSTCOMPILE_ids]) FOR UPDATE

-- a page, ours
SELECT contract_records.id, contract_records.title, contract_records.how_many, contract_records."order", contract_records.ratio, contract_records.flag, contract_records."raw", contract_records.at, contract_records.local, contract_records.day, contract_records.hour, contract_records.amount, contract_records.tag, contract_records.tree, contract_records.octopus_version, contract_records.octopus_born
FROM contract_records
WHERE contract_records.octopus_version > :after AND contract_records.id > :last ORDER BY contract_records.id
FETCH FIRST :limit ROWS ONLY

-- insert, ours
INSERT INTO contract_records (id, title, how_many, "order", ratio, flag, "raw", at, local, day, hour, amount, tag, tree, octopus_version, octopus_born) VALUES (:id, :field_0, :field_1, :field_2, :field_3, :field_4, :field_5, :field_6, :field_7, :field_8, :field_9, :field_10, :field_11, :field_12, :version, :born)

-- update, ours
UPDATE contract_records SET title=:to_field_0, how_many=:to_field_1, "order"=:to_field_2, ratio=:to_field_3, flag=:to_field_4, "raw"=:to_field_5, at=:to_field_6, local=:to_field_7, day=:to_field_8, hour=:to_field_9, amount=:to_field_10, tag=:to_field_11, tree=:to_field_12, octopus_version=:to_version, octopus_born=CASE WHEN (:to_born IS NULL OR contract_records.octopus_born > :to_born) THEN contract_records.octopus_born ELSE :to_born END WHERE contract_records.id = :key

-- delete, ours
DELETE FROM contract_records WHERE contract_records.id = :key

-- read, mapped
SELECT contract_records.id, contract_records.title, contract_records.how_many, contract_records."order", contract_records.ratio, contract_records.flag, contract_records."raw", contract_records.at, contract_records.local, contract_records.day, contract_records.hour, contract_records.amount, contract_records.tag, contract_records.tree, octopus_versions.version, CASE WHEN (octopus_versions.deleted = :deleted_1) THEN NULL ELSE octopus_versions.born END AS anon_1
FROM contract_records LEFT OUTER JOIN octopus_versions ON octopus_versions.model = :model_1 AND octopus_versions.id = CAST(contract_records.id AS VARCHAR2(1024 CHAR))
WHERE contract_records.id IN (__[POSTCOMPILE_ids])

-- what is stored, mapped
SELECT contract_records.id, NULL AS anon_1, NULL AS anon__1
FROM contract_records
WHERE contract_records.id IN (__[POSTCOMPILE_ids]) FOR UPDATE

-- a page, mapped
SELECT contract_records.id, contract_records.title, contract_records.how_many, contract_records."order", contract_records.ratio, contract_records.flag, contract_records."raw", contract_records.at, contract_records.local, contract_records.day, contract_records.hour, contract_records.amount, contract_records.tag, contract_records.tree, octopus_versions.version, CASE WHEN (octopus_versions.deleted = :deleted_1) THEN NULL ELSE octopus_versions.born END AS anon_1
FROM contract_records LEFT OUTER JOIN octopus_versions ON octopus_versions.model = :model_1 AND octopus_versions.id = CAST(contract_records.id AS VARCHAR2(1024 CHAR))
WHERE octopus_versions.version > :after AND contract_records.id > :last ORDER BY contract_records.id
FETCH FIRST :limit ROWS ONLY

-- insert, mapped
INSERT INTO contract_records (id, title, how_many, "order", ratio, flag, "raw", at, local, day, hour, amount, tag, tree) VALUES (:id, :field_0, :field_1, :field_2, :field_3, :field_4, :field_5, :field_6, :field_7, :field_8, :field_9, :field_10, :field_11, :field_12)

-- update, mapped
UPDATE contract_records SET title=:to_field_0, how_many=:to_field_1, "order"=:to_field_2, ratio=:to_field_3, flag=:to_field_4, "raw"=:to_field_5, at=:to_field_6, local=:to_field_7, day=:to_field_8, hour=:to_field_9, amount=:to_field_10, tag=:to_field_11, tree=:to_field_12 WHERE contract_records.id = :key

-- delete, mapped
DELETE FROM contract_records WHERE contract_records.id = :key

-- update alone
UPDATE contract_records SET title=:to_field_0, how_many=:to_field_1, "order"=:to_field_2, ratio=:to_field_3, flag=:to_field_4, "raw"=:to_field_5, at=:to_field_6, local=:to_field_7, day=:to_field_8, hour=:to_field_9, amount=:to_field_10, tag=:to_field_11, tree=:to_field_12, octopus_version=:to_version, octopus_born=CASE WHEN (:to_born IS NULL OR contract_records.octopus_born > :to_born) THEN contract_records.octopus_born ELSE :to_born END WHERE contract_records.id = :key AND (contract_records.octopus_version IS NULL OR contract_records.octopus_version < :before) AND contract_records.octopus_version = :expected

-- side write 0
DELETE FROM octopus_versions WHERE octopus_versions.model = :m AND octopus_versions.id = :i

-- side write 1
INSERT INTO octopus_versions (model, id, version, born, deleted) VALUES (:model, :id, :version, :born, :deleted)

-- probe
UPDATE octopus_versions SET version=:mark WHERE octopus_versions.model = :model_1 AND octopus_versions.id = :id_1

-- first probe
INSERT INTO octopus_versions (model, id, version, born, deleted) VALUES (:model, :id, :mark, :born, :deleted)
