"""What runs each block of the pages: a test of this folder, another test, or why none can here.

A block, or a single command of it, is named by how it begins; "" stands for all of a page.
"""

_EXAMPLES = "tests/e2e/test_page_examples.py"
_ON_EVIDENCE = f"{_EXAMPLES}::test_the_commands_of_a_page_on_evidence_run_in_its_order"
_GENERATED = "tests/unit/project/test_architecture.py"
_PLANS = "tests/integration/simulations/test_study_plan.py"
_FINISHED = "tests/integration/simulations/finished_runs/"
_SEVERAL = "tests/integration/simulations/several/"
_OUTCOMES = "test_regression_and_survival_page.py"
_OF_LEDGER, _PYTHON = "tests/unit/client/privacy/ledger/", "tests/integration/python/"
_TEXTS = "tests/pages/test_texts.py::"
_REVIEWED = "tests/integration/client/review/test_review_page.py"
_MONITORING = "tests/integration/client/monitoring/"
_LEAVING = "tests/e2e/studies/test_withdrawals.py"
_JOINING = "tests/e2e/studies/test_joining_late.py"
_COMPOSE = "tests/unit/project/deployment/test_compose.py"

# Pages of which a test of this folder takes every command that no row below excuses.
STORIES = {
    "README.md": "test_simulations.py::test_the_readme_s_model_meets_a_hospital_s_images",
    "CONTRIBUTING.md": "test_texts.py::test_the_commands_for_contributors_are_there",
    "docs/concepts/attacks.md": "test_simulations.py::test_a_page_on_simulations_is_followed",
    "docs/concepts/ledger.md": "test_federation.py::test_a_hospital_follows_its_pages",
    "docs/concepts/strategies.md": "test_simulations.py::test_the_table_of_strategies_is_made_anew",
    "docs/how-to/continue-a-study.md": "test_simulations.py::"
    "test_a_sequence_of_studies_is_followed",
    "docs/how-to/import-images.md": "test_simulations.py::test_a_folder_of_pictures_is_looked_at",
    "docs/how-to/joining.md": "test_federation.py::test_a_site_joins_as_the_page_says",
    "docs/how-to/leave-a-study.md": "test_simulations.py::"
    "test_a_site_leaves_a_simulation_as_the_page_says",
    "docs/how-to/masked-sums.md": "test_masked_sums.py::"
    "test_hospitals_give_each_other_their_keys_as_the_page_says",
    "docs/how-to/monitor.md": "test_federation.py::test_operators_follow_their_pages",
    "docs/how-to/operate-a-server.md": "test_federation.py::test_operators_follow_their_pages",
    "docs/how-to/read-a-report.md": "test_simulations.py::test_a_page_on_simulations_is_followed",
    "docs/how-to/run-a-site.md": "test_federation.py::test_a_hospital_follows_its_pages",
    "docs/how-to/simulate.md": "test_simulations.py::test_a_page_on_simulations_is_followed",
    "docs/how-to/track-runs.md": "test_federation.py::test_operators_follow_their_pages",
    "docs/reference/python-api.md": "test_simulations.py::test_a_notebook_is_made_of_its_source",
    "docs/reference/site-policy.md": "test_federation.py::test_a_hospital_follows_its_pages",
    "docs/reference/study-file.md": "test_simulations.py::test_a_page_on_simulations_is_followed",
    "docs/tutorials/first-simulation.md": "test_simulations.py::"
    "test_a_page_on_simulations_is_followed",
}

# Blocks of a language of its own, whatever the page.
LANGUAGES = {
    "toml": "test_texts.py::test_a_file_of_the_pages_is_taken_by_what_reads_it",
    "json": "test_texts.py::test_data_of_the_pages_parses",
    "yaml": "test_texts.py::test_data_of_the_pages_parses",
    "csv": "test_texts.py::test_a_manifest_of_the_pages_is_one",
    "bibtex": "test_texts.py::test_the_citation_is_that_of_the_repository",
}

# (page, how it begins, the test elsewhere that runs it)
ELSEWHERE = (
    ("README.md", "wardround simulate brain-tissue", _EXAMPLES),
    ("README.md", "wardround federation try", _EXAMPLES),
    ("README.md", "3 of 4 hospitals gained", _EXAMPLES),
    ("README.md", "3 sites trained", _EXAMPLES),
    ("README.md", "wardround simulate heart-disease", _EXAMPLES),
    ("README.md", "wardround stress", _EXAMPLES),
    ("README.md", "wardround report", _EXAMPLES),
    ("docs/concepts/ledger.md", "import hashlib", f"{_OF_LEDGER}test_ledger_report.py"),
    ("docs/how-to/a-year.md", "python -m benchmarks.year", f"{_SEVERAL}test_a_year.py"),
    ("docs/how-to/calibrate-and-decide.md", "```", _ON_EVIDENCE),
    ("docs/how-to/document-a-model.md", "```", _ON_EVIDENCE),
    ("docs/how-to/explain-predictions.md", "wardround explain-predictions runs", _ON_EVIDENCE),
    ("docs/how-to/explain-predictions.md", "wardround simulate", _ON_EVIDENCE),
    ("docs/how-to/stress-a-model.md", "```", _ON_EVIDENCE),
    ("docs/how-to/worth-joining.md", "```", _ON_EVIDENCE),
    ("docs/how-to/import-images.md", "import csv", _EXAMPLES),
    ("docs/how-to/import-images.md", "python make_dicom.py", _EXAMPLES),
    ("docs/how-to/import-images.md", "mkdir north", _EXAMPLES),
    ("docs/how-to/import-images.md", "echo 'name", _EXAMPLES),
    ("docs/how-to/import-images.md", "wardround site import export", _EXAMPLES),
    ("docs/how-to/import-images.md", "wardround simulate study.toml", _EXAMPLES),
    ("docs/how-to/import-images.md", "wardround site import pacs", "tests/pacs/test_import.py"),
    ("docs/how-to/pacs.md", "```", "tests/pacs/test_page.py"),
    ("docs/how-to/plan-a-study.md", "wardround study plan study.toml --server", _EXAMPLES),
    ("docs/how-to/plan-a-study.md", "wardround site", _EXAMPLES),
    ("docs/how-to/plan-a-study.md", "wardround study plan study.toml --sites", _PLANS),
    ("docs/how-to/plan-a-study.md", "wardround study check planned.toml", _PLANS),
    ("docs/how-to/own-network.md", "```", f"{_SEVERAL}test_own_network_page.py"),
    ("docs/how-to/detect.md", "```", f"{_SEVERAL}test_detection_page.py"),
    ("docs/how-to/regression-and-survival.md", "```", f"{_SEVERAL}{_OUTCOMES}"),
    ("docs/how-to/regression-and-survival.md", "import csv", f"{_SEVERAL}{_OUTCOMES}"),
    ("docs/how-to/test-generalisation.md", "```", _EXAMPLES),
    ("docs/how-to/simulate.md", "wardround evaluate FOLDER", _EXAMPLES),
    ("docs/how-to/simulate.md", "wardround explain-predictions FOLDER", _ON_EVIDENCE),
    ("docs/how-to/track-runs.md", "wardround simulate", f"{_FINISHED}test_track_pages.py"),
    ("docs/how-to/track-runs.md", "wardround track", f"{_FINISHED}test_track_pages.py"),
    ("docs/how-to/joining.md", "wardround site pending west", _JOINING),
    ("docs/how-to/joining.md", "wardround site worth", _JOINING),
    ("docs/how-to/joining.md", "wardround site approve", _JOINING),
    ("docs/how-to/leave-a-study.md", "wardround site", _LEAVING),
    ("docs/how-to/leave-a-study.md", "wardround runs", _LEAVING),
    (
        "docs/how-to/leave-a-study.md",
        "wardround model verify-withdrawal withdrawal.json",
        "tests/integration/simulations/finished_runs/test_withdrawals.py",
    ),
    ("docs/how-to/upgrade.md", "```text", f"{_TEXTS}test_a_refusal_is_worded_as_the_page_shows"),
    ("docs/how-to/review-cases.md", "```", _REVIEWED),
    ("docs/how-to/review-cases.md", "```text", _REVIEWED),
    ("docs/how-to/watch-a-model.md", "```", f"{_MONITORING}test_watch_a_model_page.py"),
    (
        "docs/how-to/review-cases.md",
        "```text",
        "tests/integration/client/review/test_review_page.py",
    ),
    ("docs/how-to/use-a-model.md", "```", "tests/integration/client/test_use_a_model_page.py"),
    (
        "docs/reference/site-folder.md",
        "wardround: the manifest",
        f"{_TEXTS}test_a_wrong_label_is_refused_in_the_words_of_the_page",
    ),
    (
        "docs/reference/site-folder.md",
        "north/",
        f"{_TEXTS}test_the_tree_of_a_site_folder_names_what_the_code_names",
    ),
    ("docs/tutorials/own-data.md", "```", _EXAMPLES),
    ("docs/tutorials/own-data.md", "import csv", _EXAMPLES),
    ("docs/tutorials/four-terminals.md", "```", "tests/e2e/test_four_terminals.py"),
    ("docs/reference/architecture.md", "```text", _GENERATED),
    ("docs/reference/python.md", "```text", _GENERATED),
    ("docs/reference/cli.md", "```", _GENERATED),
    ("docs/reference/python-api.md", "```python", f"{_PYTHON}test_python_api_page.py"),
)

_INDEX = "it downloads gigabytes from package indexes; tests/unit/project/test_installing.py"
_USAGE = "options and study are left open; test_page_commands.py holds it against the command"
_CLUSTER = "there is no Kubernetes; tests/unit/project/deployment/test_kubernetes.py"
_DOCKER = f"there is no Docker daemon; {_COMPOSE} holds it against the files"
_SLURM = "there is no Slurm; tests/e2e/places/test_slurm.py runs the scripts with its variables"

_RAY = "it names machines of a cluster; tests/e2e/places/test_ray.py has two nodes on this one"

_HAM = "it needs HAM10000; tests/integration/simulations/input/test_missing_modalities.py is near"
_OWN = "its studies are the reader's; tests/integration/simulations/several/test_transfer_runs.py"
_RECIPES = "it trains for hours; tests/unit/simulations/studies/test_recipes.py holds each study"
_LONG = "it takes long; tests/integration/simulations/several/test_series.py runs it, small"

# (page, how it begins, why it cannot be run here)
CANNOT = (
    ("docs/how-to/combine-modalities.md", "wardround", _HAM),
    ("docs/how-to/recipes.md", "wardround", _RECIPES),
    ("docs/how-to/recipes.md", "python -m benchmarks", _RECIPES),
    ("docs/how-to/transfer.md", "wardround", _OWN),
    ("docs/how-to/harmonise.md", "wardround", _LONG),
    ("README.md", "pip install", _INDEX),
    ("README.md", "wardround site serve", "it needs a picture archive: tests/pacs/test_page.py"),
    ("docs/how-to/operate-a-server.md", "pip install", _INDEX),
    ("docs/how-to/run-a-site.md", "pip install", _INDEX),
    ("docs/tutorials/first-simulation.md", "python3 -m venv", _INDEX),
    ("docs/tutorials/first-simulation.md", "pip install", _INDEX),
    ("docs/how-to/benchmarks.md", "python3.12 -m venv", "it downloads CUDA's packages"),
    ("docs/how-to/benchmarks.md", "make gpu", "it needs a GPU"),
    ("docs/how-to/deploy.md", "cd packaging/compose", _DOCKER),
    ("docs/how-to/deploy.md", "sh prepare.sh", _DOCKER),
    ("docs/how-to/deploy.md", "docker compose", _DOCKER),
    ("docs/how-to/deploy.md", "(umask 077; docker", _DOCKER),
    ("docs/how-to/deploy.md", "rm north.token", _DOCKER),
    ("docs/how-to/deploy.md", "cp state/secrets", _DOCKER),
    ("docs/how-to/deploy.md", "kubectl", _CLUSTER),
    ("docs/how-to/deploy.md", "(umask 077; kubectl", _CLUSTER),
    ("docs/how-to/deploy.md", "helm install", "there is no Helm: make chart renders the chart"),
    ("docs/how-to/deploy.md", "wardround bundle-wheels", _INDEX),
    ("docs/how-to/deploy.md", "sha256sum", "the bundle before cannot be made"),
    ("docs/how-to/deploy.md", "sh bundle/install.sh", "the bundle before cannot be made"),
    ("docs/how-to/deploy.md", "/opt/wardround", "the bundle before cannot be made"),
    ("docs/how-to/explain-predictions.md", "wardround explain-predictions FOLDER", _USAGE),
    ("docs/how-to/run-on-a-cluster.md", "ray st", _RAY),
    ("docs/how-to/run-on-a-cluster.md", "wardround simulate", _RAY),
    ("docs/how-to/run-on-a-cluster.md", "sbatch", _SLURM),
    ("docs/how-to/run-on-a-cluster.md", "COMMAND=sweep sbatch", _SLURM),
    ("docs/how-to/simulate.md", "wardround simulate [STUDY]", _USAGE),
    ("docs/how-to/simulate.md", "wardround split [STUDY]", _USAGE),
    ("docs/how-to/simulate.md", "wardround sweep [STUDY]", _USAGE),
    ("docs/how-to/upgrade.md", "python3 -m venv", "the release of this example is not out"),
    ("docs/how-to/upgrade.md", "/opt/wardround", "the release of this example is not out"),
    ("docs/how-to/upgrade.md", "ln -sfn", "it changes what the machine's users run"),
    ("docs/how-to/upgrade.md", "systemctl", "there is no systemd that runs units here"),
)
