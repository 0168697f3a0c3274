"""What can be learnt from a score table beyond its claims; each module is one method.

items                 two checkpoints on the same items: flips, McNemar's exact test
"""
