"""What `make` runs on top of the library: reports, the evaluation, the explorer, the workshop."""
