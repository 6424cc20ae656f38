"""A page to look at: results with their pictures, as one HTML file that needs nothing else."""
