"""Quality of generated images and answers: a classifier (judge), Fréchet distances, accuracies, and sample grids."""
