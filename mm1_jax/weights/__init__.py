"""Weights that were trained elsewhere: the folders they come in, and their names."""
