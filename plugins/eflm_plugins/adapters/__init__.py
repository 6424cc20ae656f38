"""Fine-tuning methods: what is trained."""
