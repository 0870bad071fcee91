"""What several sections of a random study say together."""

from tests.studies.draft import MIRRORING, Content, Draft, sites_of

from wardround.common.study.registry import NETWORKS, TASKS


def give_sizes(draft: Draft, content: Content) -> None:
    """Draw the size of the images and of patches, mostly what the network takes."""
    if not draft.dimensions:
        return
    chance, entry = draft.chance, NETWORKS[draft.network]
    features = content["model"].get("features")
    step = 16 if entry.patches else entry.divisor_for(features)
    least = max(entry.minimum_for(features), step, 4)

    def size() -> list[int]:
        return [least + step * chance.seldom() for _ in range(draft.dimensions)]

    how = chance.choice(["size", "patch", "both", "neither"]) if draft.dense else "size"
    if how == "both":  # patches of images of any size
        content["data"]["size"] = [side + chance.randint(0, 3) for side in size()]
    elif how == "size":
        content["data"]["size"] = size()
    if how in ("patch", "both"):
        content["training"]["patch_size"] = size()
        content["training"]["patches_per_image"] = chance.randint(1, 2)
    if "size" in content["data"]:
        content["data"]["fit"] = chance.choice(["resize", "pad"])


def give_recipe(draft: Draft, content: Content) -> None:
    """Draw what the recipes ask for: means of weights, softened labels, coarser levels."""
    chance, training = draft.chance, content["training"]
    drawn = chance.some({"ema": [0.5, 0.99], "label_smoothing": [0.1], "mixup": [0.2]})
    soft = TASKS[draft.task].classifies and not draft.several
    soft = soft and training.get("loss") in (None, "cross-entropy")
    for key in [] if soft else [key for key in drawn if key != "ema"]:
        drawn.pop(key)
    if draft.privacy == "patient" or not draft.dimensions or content["data"].get("optional"):
        drawn.pop("mixup", None)
    training.update(drawn)
    if "momentum" in training and chance.mostly(True, False):
        training["nesterov"] = True
    if chance.seldom():
        content["federation"]["ema"] = chance.choice([0.5, 0.9])
    mirrors = content["data"].get("augmentation") in MIRRORING and chance.seldom()
    if mirrors and not (TASKS[draft.task].boxes or draft.restores):
        content["evaluation"]["tta"] = "mirror"
    levels = len(content["model"].get("features") or (0,) * 4)
    plain = not content["data"].get("covariates") and not content["data"].get("optional")
    if draft.network == "dynunet" and plain and draft.privacy != "patient":
        content["model"].pop("fusion", None)
        content["model"]["deep_supervision"] = chance.randint(0, levels - 2)


def let_lack(draft: Draft, content: Content) -> None:
    """Draw what is left out in training, and a site that has none of it."""
    optional = content["data"].get("optional", [])
    if optional and draft.chance.seldom():
        content["training"]["modality_dropout"] = 0.3
    if optional and draft.chance.seldom():
        names = optional[: draft.chance.randint(1, len(optional))]
        lacking = {"names": names, "sites": [sites_of(content)[0]]}
        content["simulation"]["lacking"] = [lacking]


def harmonise(draft: Draft, content: Content) -> None:
    """Draw what ComBat would have fitted to each site."""
    data = content["data"]
    names = [one["name"] for one in data.get("covariates", [])]
    sites = sites_of(content)
    if "weight" not in names or draft.privacy != "none" or len(sites) < 2:
        return
    if draft.chance.seldom():
        return
    preserve = ["sex"] if "sex" in names and draft.chance.seldom() else []
    data["combat"] = {
        "features": ["age", "weight"],
        "preserve": preserve,
        "means": [60.0, 80.0],
        "effects": [[1.0, -1.0] if preserve else [], [-5.0, 5.0] if preserve else []],
        "sites": [
            {"name": name, "shifts": [1.0 + at, -2.0 * at], "scales": [1.0, 0.5 + at]}
            for at, name in enumerate(sites)
        ],
    }
    content["simulation"]["compare"] = False
