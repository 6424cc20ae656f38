"""The worker process, which builds the model and runs one step of a plan."""
