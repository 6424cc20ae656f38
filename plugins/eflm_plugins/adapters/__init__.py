"""Fine-tuning methods: they select or add the parameters to train."""
