"""What a checkpoint is asked: items with images, prompts, references and a metric."""
