"""Objectives: pure functions from model outputs and targets to a scalar loss."""
