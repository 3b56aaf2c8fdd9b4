"""Fine-tuning and pretraining: losses, optimizers, data, the loop, and what reports on it."""
