"""Encoder → connector → language model, and what they are made of (MM1 §3)."""
