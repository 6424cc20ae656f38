"""A run's two sides: `run` starts and watches, `worker` works in a process of its own, `events` lie between them."""
