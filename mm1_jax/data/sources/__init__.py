"""The data that comes in packages, and how it is prepared."""
