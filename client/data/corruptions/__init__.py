"""Images made worse on purpose: noise, blur, greys, coarse grids, scanner artefacts; five steps."""
