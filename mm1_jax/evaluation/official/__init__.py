"""Benchmarks as they are published: their files, folders, prompts and scoring."""
