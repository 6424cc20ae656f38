"""What the parent process and its workers exchange: events and stage records. No torch."""
