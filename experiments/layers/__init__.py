"""Layers that several parts share. Randomness always comes in as an argument; no layer hides a state."""
