"""From prepared documents to the batches of a training: shuffled, packed, mixed, laid out."""
