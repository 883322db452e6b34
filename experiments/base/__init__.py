"""The ground of the harness: contracts, options, errors, the command line, devices. It imports nothing above it."""
