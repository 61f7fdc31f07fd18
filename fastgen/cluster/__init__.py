"""Runs on a SLURM cluster: submit them, and see how far they are; without torch, so that login nodes can."""
