"""`eflm report`: results and their pictures as one HTML file."""
