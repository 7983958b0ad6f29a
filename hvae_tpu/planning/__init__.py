"""What a training program will need on chips that are not there: memory, work, traffic, time."""
