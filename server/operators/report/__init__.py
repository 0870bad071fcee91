"""The operator's page of a run: from what the server has, for any install of wardround."""

from wardround.server.operators.report.page import write_report

__all__ = ["write_report"]
