"""From packages of real data to batches: prepare once, pack, lay out for an arm."""
