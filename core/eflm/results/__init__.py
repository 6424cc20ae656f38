"""Result files and checkpoints on disk, and the aggregation of repeated runs. No torch."""
