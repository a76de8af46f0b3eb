"""The live page of a training: a file that refreshes itself in a browser, without a server."""

from dense_imb.report.live.callback import LivePage, LiveWarning

__all__ = ["LivePage", "LiveWarning"]
