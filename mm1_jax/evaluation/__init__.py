"""A checkpoint is asked and scored: by held-out tasks, and by published benchmarks."""
