"""Data: sources (one file each), words and vocabulary, batches of one length."""
