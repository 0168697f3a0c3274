"""Raw web-scale formats as documents in reading order; one module a format."""
