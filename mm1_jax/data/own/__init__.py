"""A user's own data: read, cleaned, prepared in shards, and found again."""
