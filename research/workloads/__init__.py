"""Small, real training problems on which optimizers are compared."""
