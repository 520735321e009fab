"""Runs on a SLURM cluster: snapshots of the code, notices of the end of a job, requeues."""
