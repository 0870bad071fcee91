"""Studies of images of one size, of a table, and of images of any size."""

from wardround.common.study.loading import parse_study

IMAGES = parse_study(
    {
        "study": {"name": "images", "task": "classification"},
        "data": {"classes": ["a", "b"], "size": [16, 16]},
        "model": {"network": "small-cnn"},
    }
)
TABLE = parse_study(
    {
        "study": {"name": "table", "task": "classification"},
        "data": {
            "kind": "table",
            "classes": ["a", "b"],
            "covariates": [{"name": "age", "mean": 50.0, "scale": 10.0}],
        },
        "model": {"network": "mlp"},
    }
)
ANY_SIZE = parse_study(
    {
        "study": {"name": "any-size", "task": "segmentation"},
        "data": {"classes": ["a", "b"]},
        "model": {"network": "unet"},
        "training": {"batch_size": 1},
    }
)
