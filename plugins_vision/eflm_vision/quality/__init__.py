"""What generated pictures are worth: a judge trained on real ones, distances, and grids to look at."""
