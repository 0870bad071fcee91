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
ROUNDS = (
    "detection",
    "regression",
    "survival",
    "cox",
    "restoring",
    "contrasting",
    "fusion, early",
    "fusion, intermediate",
    "fusion, late",
    "mirrored views",
    "adversarial",
    "mixed images",
    "averaged weights",
    "fedprox",
    "scaffold",
    "feddyn",
    "moon",
    "fedrep",
    "ditto",
    "apfl",
    "fedavg-finetune",
    "coral",
    "small-features",
    "aligned-features",
    "ewc",
    "lwf",
    "replay",
    "masked",
    "private",
)
COUNTED = (
    "detection",
    "regression",
    "survival",
    "restoring",
    "contrasting",
    "fusion, early",
)
ANSWERED = ("detection", "regression", "survival", "fusion, early", "mirrored views")
EXPLAINED = ("grad-cam", "hires-cam", "integrated-gradients")
