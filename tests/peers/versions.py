"""Prints the versions of the Python peers as pip writes them."""

from importlib.metadata import version

for name in ("pydicom", "pynetdicom", "duckdb", "duckdb-extension-sqlite-scanner", "hl7"):
    print(f"{name}=={version(name)}")
