"""Prints as JSON lines what DuckDB and SQLite read from the views of an index, in one form and order: view, row."""

import json
import sqlite3
import sys
from pathlib import Path

import duckdb
import duckdb_extension_sqlite_scanner

VIEWS = (
    "patients", "studies", "series", "instances", "files", "copies", "failed_files", "conflicts", "arrivals", "declared_values",
)


def through_duckdb(index):
    # The extension comes as a Python package, so that nothing is fetched.
    package = Path(duckdb_extension_sqlite_scanner.__file__).parent
    (extension,) = package.glob("extensions/*/sqlite_scanner.duckdb_extension")
    connection = duckdb.connect()
    connection.execute(f"LOAD '{extension}'")
    connection.execute(f"ATTACH '{index}' AS archive (TYPE sqlite, READ_ONLY)")
    return lambda view: connection.execute(f"SELECT * FROM archive.{view}")


def through_sqlite(index):
    connection = sqlite3.connect(f"file:{index}?mode=ro", uri=True)
    return lambda view: connection.execute(f"SELECT * FROM {view}")


def main():
    engine, index = sys.argv[1:]
    ask = {"duckdb": through_duckdb, "sqlite": through_sqlite}[engine](index)
    for view in VIEWS:
        answer = ask(view)
        names = [column[0] for column in answer.description]
        rows = [[None if value is None else str(value) for value in row] for row in answer.fetchall()]
        for row in sorted(rows, key=str):
            print(json.dumps([view, dict(zip(names, row))]))


main()
