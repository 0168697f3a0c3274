"""The model core: config, model, data, training, evaluation. Knows nothing of studies."""
