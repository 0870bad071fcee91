"""The cautious ``policy.toml`` that a hospital starts from."""

TEMPLATE = """\
# What this hospital allows. Nothing else is done, and nothing else leaves.
# 'wardround site explain STUDY --site FOLDER' holds a study against it, rule by rule.

# Differential privacy of each patient. Epsilon says how much any answer can depend on one patient:
# 8 is the most that is usual, 3 or less is advised.
privacy_required = true
lifetime_epsilon = 8.0            # all studies together, for ever
lifetime_delta = 1e-5             # less than 1 / (10 x patients of this site)
study_epsilon = 8.0               # one study
# refused_above_the_cap = "round"    # where a study plans more: the rounds that do not fit, and
#                                    # not all of it (which is "study", as if absent)

# "required": only studies whose server learns the sum of the sites and no single update.
secure_aggregation = "allowed"
# smallest_sum = 5                  # under masks: of how many sites a sum is at least; 3 if absent

# What may be trained.
tasks = ["classification", "detection", "segmentation", "regression", "survival", "pretraining"]
# networks = ["small-cnn", "unet"]  # all known ones if absent

# What share of the patients a study may keep for validation and for testing, where the manifest
# has no column split. Who is in which part is drawn here, once, and never changes.
largest_validation_share = 0.3
largest_test_share = 0.35

# What may leave.
smallest_cohort = 20              # training patients; with fewer the site does not take part
smallest_cell = 10                # no count below it leaves; counts are rounded to multiples of it
metrics = "values"                # "values" (three decimals), "none", or "sums" (exact tables)
# "yes": a study that you approve may be told histograms of the training data to plan from. "exact":
# also sums of covariates as they are, not rounded, for ComBat.
statistics = "no"
largest_statistics = 20           # so many studies without noise
packs = []                        # evidence of a finished model, once a run: "intervals",
largest_packs_of_a_study = 2      # "calibration", "subgroups", "gains"; of so many runs of a study
largest_evaluations_a_day = 200   # models measured without noise: for all studies together,
largest_evaluations_of_a_study = 1000  # and for one study (with privacy: one answer a round)
largest_canaries_of_a_study = 20  # answered with words: would an approved study fail here?
# monitoring = "noised"          # one bit a period: "exact" or "noised"; nothing is said if absent
# monitoring_epsilon = 1         # of one noised word, and of all of them together, ever
# largest_monitoring_epsilon = 8
largest_message_megabytes = 1000

# What may come in: a number of a received model, in a study that protects its patients.
largest_weight = 1000
# takes_models = false              # no finished model is fetched; true if absent

# When.
# training_hours = ["22:00", "06:00"]  # local time; may cross midnight; always if absent
# largest_training_minutes = 60        # a round; a longer one is stopped, and nothing leaves

answer_step_seconds = 1           # an answer waits for the next step: its time then tells less of
                                  # how many patients there are; with more than any takes, nothing
kept_answer_days = 30             # an answer that the server has not confirmed is deleted then

# The studies that were read and approved, by digest ('wardround study check STUDY'), once each.
# Nothing is approved until it stands here, or 'wardround site approve' has written it down.
approved = []
# rounds_factor = 2                 # an approval of a study without privacy of patients ends after
#                                    # so many times its rounds; of another, after its rounds

# Installed packages whose code a study may name ('wardround site package NAME' prints the line).
# None is imported unless it stands here with the hash of its files, and the study says the same.
# [packages]
# example-ward = "0123456789abcdef..."
"""
