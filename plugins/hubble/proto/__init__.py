"""The messages of the Hubble API. Python code is built from the .proto files at installation (contrib/packaging)."""
