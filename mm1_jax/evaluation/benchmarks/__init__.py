"""Published benchmarks, a module each; its `TASK` reads, asks and scores it."""
