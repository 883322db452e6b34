"""What is on disk: run folders, checkpoints, parameters. Nothing here can execute what a file says."""
