"""From data to batches: documents, their tokens, and the words around them."""
