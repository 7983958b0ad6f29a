"""Report about a run: one HTML file that needs no server and asks the network for nothing."""

from hvae_tpu.figures.report.page import build

__all__ = ['build']
