"""What is done on the stand-in device, by name: what is tested may not be left out unseen."""

TRAINED = (
    "classification",
    "dermoscopy",
    "covariates",
    "segmentation",
    "clipped",
    "patches",
    "small volumes",
    "fedprox",
)
EVALUATED = ("classification", "covariates", "segmentation", "patches")
METHODS = ("ghost", "loop", "vmap")
