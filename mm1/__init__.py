"""The command line and public Python API; the only package that imports all others."""
