"""Planning for TPU slices without a TPU: memory, work, traffic and time of a program."""
