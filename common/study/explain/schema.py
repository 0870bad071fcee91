"""The JSON Schema of a study file, each key with a sentence: what an editor shows beside it."""

from collections.abc import Mapping
from typing import Any

from wardround.common.study.study import Study
from wardround.common.study.versions import KEY, newest

_STUDY = {
    "name": "What the study is called; letters, digits, blanks, dots, hyphens, underscores.",
    "task": "What is learned: classification, detection, segmentation, regression, survival, or "
    "pretraining, which needs no labels.",
    "description": "A sentence for a hospital's data-protection officer.",
    "repeats": "The study whose rounds are trained again; 'wardround runs withdraw' writes it.",
}
_REPEAT = {
    "parent": "Its digest.",
    "request": "SHA-256 of the signed request to leave it.",
    "after_round": "The last of its rounds that is kept; 0 where all are trained again.",
    "without": "What left it: a hospital (site), or patients of one (patients).",
}
_DATA = {
    "kind": "image, or table for clinical values alone.",
    "channels": 'One column of the manifest each: "image", or "image.t1" for "t1".',
    "dimensions": "2 or 3.",
    "colour": "Whether images have three colours; 2D only.",
    "classes": "Their names in order; of a segmentation the background comes first.",
    "outcome": "What a task without classes predicts: a number, or the time until an event.",
    "multi_label": "Whether several classes may apply to one image.",
    "ignore_label": "Of a mask: the label of what nobody annotated; counts in no loss or metric.",
    "size": "Pixels or voxels of an axis each; every image is brought to this size.",
    "fit": "How: resize, or pad, which cuts or fills and keeps the scale.",
    "spacing": "Millimetres between voxels, a number an axis.",
    "orientation": 'Of the axes, e.g. "RAS", which is the default; or "stored". 3D only.',
    "resample_to": '"image": masks and channels on another grid are brought onto the first one.',
    "intensity": "How values are brought to one scale, by the kind of image.",
    "window": "Centre and width in Hounsfield units, for ct.",
    "scaling": "Mean and deviation by which what lies in the window is standardised, for ct.",
    "denoise": "Whether a gentle Gaussian is applied.",
    "harmonisation": "How images of different scanners are made alike, each by itself.",
    "augmentation": "Random changes of training images: light, one for a kind of image, or nnunet.",
    "covariates": "Clinical values of each patient, a table each.",
    "combat": "Covariates without what is their site's, as ComBat found it.",
    "covariate_scaling": "Whose mean and deviation scale them: the study's, or each site's own.",
    "optional": "Channels and covariates that an examination, or a whole site, may lack.",
    "labels": "What the classes are called elsewhere.",
}
_OUTCOME = {
    "name": 'What it is, e.g. "age" or "death"; reports and predictions call it so.',
    "unit": 'Of what the manifest says, e.g. "years"; empty where it has none.',
    "range": "regression: the least and the largest number that a label may be.",
    "mean": "regression: what is taken away from a label; the middle of the range where absent.",
    "scale": "regression: what the rest is divided by; a quarter of the range where absent.",
    "times": "survival: the upper ends of the intervals of time; the last is the horizon.",
}
_HARMONISATION = {
    "bias_correction": "Whether a smooth shading is divided out, as N4 does.",
    "landmarks": "A list a plane: grey values of a public reference at 11 quantiles.",
    "foreground": "Which voxels' quantiles count: nonzero, above-mean, or all.",
}
_COMBAT = {
    "features": "The covariates that are changed.",
    "preserve": "Those whose effect on them is kept.",
    "means": "Of each feature over all sites.",
    "effects": "A list a feature: what each preserved column adds.",
    "sites": "What each site adds, a table each.",
}
_COMBAT_SITE = {
    "name": "The site.",
    "shifts": "What it adds to each feature.",
    "scales": "How many times as far each feature spreads there.",
}
_LABELS = {
    "codes": 'A class\'s code in a terminology, e.g. {liver = "SCT:10200004"}.',
    "words": 'What a site may write for a class, e.g. {Leber = "liver"}; its own words win.',
    "partial": "Whether a site takes part that has annotated some of the classes alone.",
}
_COVARIATE = {
    "name": "The column of the manifest.",
    "values": "The categories that are known; none for a number.",
    "reference": "A category's value that has no column: the others are compared with it.",
    "mean": "What is taken away from a number.",
    "scale": "What the rest is divided by.",
}
_MODEL = {
    "network": "The network: by name, package:name, or monai:Class.",
    "arguments": "What a network of a package or of MONAI is built with, beside the study's sizes.",
    "features": "Channels of each level of the network; its own where absent.",
    "anchors": "Of a detection: sides of the squares that boxes start from, one a level.",
    "normalisation": "The kind of its normalisation layers; its own for default.",
    "activation": "The function behind its layers; its own for default.",
    "dropout": "The chance with which a unit is left out of a training step.",
    "fusion": "Where channels and clinical values come together: early, intermediate or late.",
    "adapter_rank": "Rank of LoRA adapters; the network is then frozen but for them and its head.",
    "adapter_scale": "What the adapters' output is multiplied by: alpha / r in the paper.",
    "weights_sha256": "Hash of a file of pretrained weights to start from, or beneath adapters.",
    "frozen": "Patterns of numbers that training leaves as they are, and that are not sent.",
    "deep_supervision": "How many coarser levels of a U-Net answer too while it is trained.",
    "test_time_statistics": "What part of batch statistics are the image's own when evaluated.",
    "fixer": "Whether layers that do not train privately are replaced, as Opacus does it.",
}
_TRAINING = {
    "loss": "What is made small; the task's own where absent.",
    "class_weights": "none, balanced (by each site's own counts), or a number a class.",
    "optimiser": "sgd, adam or adamw.",
    "learning_rate": "Size of a step; often abbreviated lr.",
    "momentum": "Of sgd.",
    "nesterov": "Of sgd: whether its momentum looks ahead.",
    "ema": "A site sends the mean of the round's networks; what of it each further step keeps.",
    "label_smoothing": "Share of a label that is spread evenly over all classes.",
    "mixup": "Two images of a batch are mixed, and their labels: alpha of the Beta distribution.",
    "weight_decay": "How strongly weights are drawn to zero.",
    "schedule": "How the learning rate falls over the whole study.",
    "warmup": "Share of the study in which the learning rate rises.",
    "batch_size": "Examples of a training step.",
    "local_epochs": "Passes over a site's patients in a round; or say local_steps.",
    "local_steps": "Training steps of a round; or say local_epochs.",
    "sampling": "shuffle, or balanced: classes equally often.",
    "modality_dropout": "The chance with which a step does without an optional channel or value.",
    "gradient_clip": "Largest norm of a step's gradient.",
    "precision": "Of the arithmetic of a training step.",
    "patch_size": "A segmentation trains on patches of this size.",
    "patches_per_image": "How many patches an image gives to a pass.",
    "foreground_fraction": "Share of the patches that are placed on the foreground.",
    "adversarial": "Training images are changed against the network before each step.",
    "masking": "What pretraining hides of each image.",
}
_MASKING = {
    "fraction": "Share of the image that is hidden.",
    "patch": "Side in pixels of what is hidden; an eighth of the shortest side where absent.",
}
_ADVERSARIAL = {
    "epsilon": "How far a grey value may go, in 255ths of the image's range.",
    "steps": "How many gradient steps look for the worst change; each costs a pass.",
    "fraction": "Share of each batch that is changed.",
    "start_round": "The first round in which it is done.",
}
_FEDERATION = {
    "strategy": "How updates become the next model, by name.",
    "share": "Which numbers travel, instead of the strategy's choice.",
    "personal": "Patterns of numbers that stay at a site whatever is shared.",
    "objective": "What a site makes small beside the loss, instead of the strategy's choice.",
    "aggregation": "How updates combine, instead of the strategy's choice.",
    "server_optimiser": "What the server does with the result, instead of the strategy's choice.",
    "options": "The numbers of the strategy.",
    "rounds": "How often the sites train and the server aggregates.",
    "seed": "Of the first weights and of every order.",
    "minimum_sites": "The quorum: a round with fewer updates fails.",
    "fraction": "Share of the sites that take part in a round, drawn anew each round.",
    "deadline_seconds": "How long a round waits for its sites.",
    "norm_limit": "An update that goes this many times as far as the last median is refused.",
    "patience_rounds": "The study ends after so many rounds without a better model.",
    "ema": "The result is the mean of the rounds' models; what of it each further round keeps.",
    "compression": "How an update is written in fewer bytes; what is lost is sent later.",
    "kept_fraction": "For top-k: the share of the numbers that is sent.",
    "buffer_size": "Asynchronous: the model moves on after this many updates, whoever sent them.",
    "secure_aggregation": "Whether sites mask their updates: the server learns their sum alone.",
    "masks": "The whole numbers that masked updates are added up as.",
}
_MASKED = {
    "largest_change": "Most that a number of the model changes by in a round, or the site leaves.",
    "most_examinations": "A site with more training examinations counts as one with so many.",
    "most_sites": "How many sites are added up at most.",
    "word_bits": "Of a number under its mask: 32, 16 are fewer bytes, if all sites count the same.",
    "clip_norm": "A site shortens a longer change to this length, before it is masked.",
    "groups": "So many sums a round, of groups drawn anew, over which a robust rule decides.",
    "smallest_group": "Of a group with fewer sites nothing is told.",
}
_OPTIONS = {
    "proximal_weight": "proximal: mu of FedProx.",
    "dynamic_weight": "dynamic: alpha of FedDyn.",
    "contrastive_weight": "contrastive: mu of MOON.",
    "contrastive_temperature": "contrastive: tau of MOON.",
    "feature_weight": "small-features, aligned-features, coral: weight of the term, alpha.",
    "head_fraction": "head-then-body: share of the steps on the head.",
    "personal_weight": "personal-model: lambda of Ditto.",
    "mixture": "mixture: alpha of APFL, the personal model's part.",
    "finetune_steps": "fine-tune: how many steps; those of a round where absent.",
    "fairness": "fair-mean: q of q-FedAvg; 0 makes all sites equal.",
    "assumed_hostile": "Robust rules: how many sites may lie.",
    "norm_bound": "norm-bounded-mean and centred-clipping; the median of the norms where absent.",
    "weight_cap": "Robust rules: most weight of a site, times that of the median site.",
    "trim_fraction": "flower:FedTrimmedAvg: beta.",
    "server_learning_rate": "Size of the server's step; all but replace.",
    "server_momentum": "momentum.",
    "server_betas": "adam and yogi: the two decays.",
    "server_epsilon": "adam, yogi and adagrad: tau of Reddi et al. 2021.",
}
_PRIVACY = {
    "mode": "Whom it protects: nobody, each patient, or each site as a whole.",
    "epsilon": "What all rounds may spend; the noise is solved for it.",
    "delta": "The chance beside epsilon; below 1 / (10 x patients of the smallest site).",
    "noise_multiplier": "Standard deviation of the noise over clip_norm, instead of epsilon.",
    "noise": "Local: at each site, or the server. Distributed: shares of the masked sum's noise.",
    "colluding_sites": "Distributed: how many sites may tell the server their shares.",
    "clip_norm": "Largest norm of what one patient adds to a step, or one site to a round.",
    "sampling_rate": "Patient: probability that a patient takes part in a step.",
    "expected_patients": "Patient: what the sum of a step is divided by.",
    "examples_per_patient": "Patient: most examples of a patient in a step.",
    "augmentation_copies": "Patient: how often an example enters a step, augmented anew.",
    "microbatch": "Patient: examples in memory at once; changes no result.",
    "gradients": "Patient: how a single patient's gradient is found; changes no result.",
    "largest_weight": "Patient: largest number of a model sent to a site; a site may want less.",
    "validation_epsilon": "Patient: what all measurements on validation patients may spend.",
    "test_epsilon": "Patient: what the one measurement on test patients may spend.",
    "adaptive_clipping": "Site: whether the clip norm follows a quantile of the updates' norms.",
    "clip_quantile": "Site: that quantile.",
    "count_noise": "Site: deviation of the noise on the count that the quantile is read from.",
}
_EVALUATION = {
    "metric": "What picks the best model and steers early stopping.",
    "metrics": "Metrics of installed packages, package:name, measured beside the task's own.",
    "validation_fraction": "Share of patients that pick the model.",
    "test_fraction": "Share of patients on whom the chosen model is tested.",
    "pack": "Sums that leave once, at the end: intervals, calibration, subgroups, gains.",
    "pack_bins": "Into how many bins of [0, 1] these count scores.",
    "surface_tolerance_mm": "Of surface Dice, in millimetres.",
    "score_bins": "Of the histograms from which AUROC is merged.",
    "keep": "Which model is the result: the best, or the last.",
    "margin": "The smallest difference that matters, in the metric's units.",
    "tta": "mirror: test images are seen mirrored along every axis too, and answers averaged.",
    "overlap": "Of sliding windows, as a share of the window.",
    "subgroups": "By what patients are grouped: covariates, manifest columns, or quality.",
    "bands": "Of a number among the subgroups: where its bands end.",
    "operating_point": "What the threshold chosen on validation patients shall reach.",
    "prevalence": "By class: the share of people who have it where the model would be used.",
}
_OPERATING_POINT = {
    "sensitivity": "The share of a class's cases that is found, at least.",
    "specificity": "Instead: the share of the others that is left alone, at least.",
}
_STATISTICS = {
    "ask": "Whether the run asks for histograms to plan from; it then trains nothing.",
    "epsilon": "What they spend on a training patient, where privacy.mode is patient.",
    "intensity": "From where to where intensities are counted.",
    "intensity_bins": "Into how many bins.",
    "spacing_step_mm": "A voxel's sides are counted in steps of this.",
    "size_step": "An image's sides are counted in steps of so many voxels.",
    "extent_step_mm": "And in steps of so many millimetres.",
    "combat": "Covariates that ComBat is fitted to, from sums instead of histograms; a table each.",
}
_COMBAT_COLUMN = {
    "name": "The covariate.",
    "low": "A value below counts as this.",
    "high": "A value above counts as this.",
    "preserve": "Whether its effect on the others is kept.",
}
_CONTINUAL = {
    "wave": "Rows of this wave in the manifest are new, those of earlier ones old.",
    "parent": "Digest of the study whose model it starts from; 'study continue' writes it.",
    "model": "Digest of that model's numbers; whoever holds others refuses.",
    "classes": "How many of data.classes the parent's model knows, the first ones.",
    "method": "What keeps what was learnt: replay, ewc, lwf or none.",
    "replay": "Share of each batch that is of old rows; of k waves (k - 1) / k where absent.",
    "weight": "What the term of ewc or lwf is multiplied by; 1 where absent.",
    "temperature": "Of lwf: what logits are divided by before they are compared.",
    "margin": "How far a site may fall for a promotion; evaluation.margin where absent.",
    "margins": "Likewise of single sites, by name.",
}
_SIMULATION = {
    "data": "The data set, by name.",
    "options": "What the data set is asked for; 'wardround data show NAME' lists it.",
    "split": "How patients are divided between the simulated sites.",
    "sites": "How many sites there are.",
    "alpha": "dirichlet and quantity: small numbers make sites unequal.",
    "classes_per_site": "classes: how many classes a site has.",
    "seed": "Of the split.",
    "shift": "How the sites' scanners differ, a table each.",
    "lacking": "Sites that lack an optional channel or covariate, a table each.",
    "adversary": "Sites that attack the training, a table each.",
    "late": "By site, the first round that it takes part in; the others take part from the first.",
    "compare": "Whether each site alone, and all data in one place, are trained too.",
    "keep_updates_mb": "Most megabytes of updates kept, to tell each site's contribution.",
    "parent": "The run folder of the study that this one goes on from.",
}
_SHIFT = {
    "kind": "What differs.",
    "strength": "How much it differs.",
    "sites": "Whose scanners; where absent all of them, each more than the last.",
    "waves": "Of which waves of data; all of them where absent.",
}
_LACKING = {
    "names": "Channels and covariates of data.optional.",
    "sites": "Which sites have none of them.",
}
_ADVERSARY = {
    "kind": "What the sites do.",
    "sites": "Who attacks.",
    "count": "How many attack, drawn by the seed, instead of names.",
    "strength": "The attack's own: a factor, or a standard deviation.",
    "target": "backdoor: the class that the trigger stands for.",
}
KEYS: Mapping[str, Mapping[str, str]] = {
    "StudySection": _STUDY,
    "Repeat": _REPEAT,
    "DataSection": _DATA,
    "OutcomeSection": _OUTCOME,
    "HarmonisationSection": _HARMONISATION,
    "CombatSection": _COMBAT,
    "CombatSite": _COMBAT_SITE,
    "CombatColumn": _COMBAT_COLUMN,
    "LabelsSection": _LABELS,
    "Covariate": _COVARIATE,
    "ModelSection": _MODEL,
    "TrainingSection": _TRAINING,
    "AdversarialSection": _ADVERSARIAL,
    "MaskingSection": _MASKING,
    "FederationSection": _FEDERATION,
    "MaskingOptions": _MASKED,
    "StrategyOptions": _OPTIONS,
    "PrivacySection": _PRIVACY,
    "EvaluationSection": _EVALUATION,
    "OperatingPoint": _OPERATING_POINT,
    "StatisticsSection": _STATISTICS,
    "ContinualSection": _CONTINUAL,
    "SimulationSection": _SIMULATION,
    "Shift": _SHIFT,
    "Lacking": _LACKING,
    "Adversary": _ADVERSARY,
}


def study_schema() -> dict[str, Any]:
    """Return the JSON Schema of a study file: every key, its type, its limits and its meaning."""
    schema = Study.model_json_schema()
    for section, table in schema["$defs"].items():
        first_line = str(table.get("description", "")).partition("\n")[0]
        table["description"] = first_line.replace("``", "")
        for key, content in table.get("properties", {}).items():
            content["description"] = KEYS.get(section, {}).get(key, "")
    packages = schema["properties"]["packages"]
    for key, content in schema["properties"].items():
        if key == "packages":
            continue
        several = content.get("allOf") or content.get("anyOf") or [{}]
        reached = str(content.get("$ref") or several[0]["$ref"]).rpartition("/")[2]
        content["description"] = schema["$defs"][reached]["description"]
    packages["description"] = (
        "The SHA-256 over the files of each installed package that the study names, by its name; "
        "'wardround study lock' writes it."
    )
    version = {"type": "integer", "minimum": 1, "maximum": newest(), "default": 1}
    version["description"] = "The version of these keys; absent for 1."
    schema["properties"] = {KEY: version, **schema["properties"]}
    return schema
