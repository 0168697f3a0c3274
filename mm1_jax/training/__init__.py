"""Every stage that trains, the loop they share, and the checkpoints it writes."""
