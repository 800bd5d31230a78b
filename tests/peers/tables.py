"""Reads a table of `dcmdex export` with DuckDB, pandas and polars, without a download, and prints what each makes of it."""

import json
import sys

import duckdb
import pandas
import polars

path = sys.argv[1]
columns = sys.argv[2].split(",")
names = ", ".join(columns)
result = {}

connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
described = connection.execute(f"DESCRIBE SELECT {names} FROM '{path}'").fetchall()
rows = connection.execute(f"SELECT {names} FROM '{path}' ORDER BY ALL").fetchall()
result["duckdb"] = {"types": [row[1] for row in described], "rows": [[str(value) for value in row] for row in rows]}

if "*" in path:
    pass
elif path.endswith(".parquet"):
    frame = polars.read_parquet(path).select(columns)
    result["polars"] = {"types": [str(kind) for kind in frame.dtypes], "rows": frame.height}
    table = pandas.read_parquet(path, dtype_backend="pyarrow")[columns]
    result["pandas"] = {"types": [str(kind) for kind in table.dtypes], "rows": len(table)}
elif path.endswith(".csv"):
    frame = polars.read_csv(path, try_parse_dates=True).select(columns)
    result["polars"] = {"types": [str(kind) for kind in frame.dtypes], "rows": frame.height}
    table = pandas.read_csv(path, parse_dates=[name for name in columns if name.endswith("_date")])[columns]
    result["pandas"] = {"types": [str(kind) for kind in table.dtypes], "rows": len(table)}
else:
    frame = polars.read_ndjson(path, infer_schema_length=None).select(columns)
    result["polars"] = {"types": [str(kind) for kind in frame.dtypes], "rows": frame.height}
    table = pandas.read_json(path, lines=True)[columns]
    result["pandas"] = {"types": [str(kind) for kind in table.dtypes], "rows": len(table)}

print(json.dumps(result))
