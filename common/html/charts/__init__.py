"""Charts as SVG text: from named numbers to a picture that needs no script."""
