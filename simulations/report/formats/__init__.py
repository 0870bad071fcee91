"""The report as a page, as a PDF, as data and as Markdown: one content, four ways to write it."""
