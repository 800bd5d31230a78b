"""Prints the versions of the Python peers as pip writes them."""

from importlib.metadata import version

for name in ("pydicom", "pynetdicom"):
    print(f"{name}=={version(name)}")
