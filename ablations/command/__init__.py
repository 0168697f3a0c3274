"""A workload that is a command: any training script, in any language, ablated as it is."""
