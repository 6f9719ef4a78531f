"""Attention with its gradients, on CPU, GPU and TPU."""
