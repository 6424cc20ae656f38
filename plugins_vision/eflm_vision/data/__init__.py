"""Data: pictures with labels, from scikit-learn or a folder."""
