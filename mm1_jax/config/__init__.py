"""What decides a checkpoint, a module a part: plain frozen models that import no JAX."""
