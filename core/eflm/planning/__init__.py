"""From a request to a plan: compatibility checks, options, and a chain of stages with their keys. No torch."""
