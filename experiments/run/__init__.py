"""One training run: its configuration, the loop and what accompanies it, and a trained run back in memory."""
