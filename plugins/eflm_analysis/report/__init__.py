"""`eflm report`: results with their pictures as one HTML file."""
