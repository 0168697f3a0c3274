"""Verdicts on numbers that were made elsewhere: tables, trackers, result folders."""
