"""The worker process: builds the model and runs one stage of a plan."""
