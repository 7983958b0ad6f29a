"""Tests: `python -m pytest`, or `launch/test.sh` with everything it needs installed."""
