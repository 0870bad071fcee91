"""A model folder or a bundle from a stranger runs nothing, and is refused in words."""

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.client.clinic.inference.conftest import MakeModel, study_of

from wardround.client.clinic.inference.predictor import load_predictor
from wardround.common.errors import ModelError
from wardround.common.models import model_folder
from wardround.common.models.bundle import write_bundle
from wardround.common.models.contract import Contract
from wardround.common.models.imported import import_bundle
from wardround.common.models.model_folder import open_model_folder, sign_model_folder
from wardround.common.parameters.model_file import save_model
from wardround.common.study.study import Study


class Payload:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


def dense() -> Study:
    return study_of("segmentation", model={"network": "basic-unet", "features": [8] * 6})


@pytest.fixture
def bundle(make_model: MakeModel, tmp_path: Path) -> Path:
    write_bundle(open_model_folder(make_model(dense())), tmp_path / "bundle")
    return tmp_path / "bundle"


def change(path: Path, **keys: object) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **keys}))


def test_a_bundle_whose_weights_are_a_pickle_with_code_is_refused_and_the_code_does_not_run(
    bundle: Path, tmp_path: Path
) -> None:
    mark, weights = tmp_path / "ran", bundle / "models" / "model.pt"
    (bundle / "models" / "model.safetensors").unlink()
    plain = pickle.dumps(Payload(mark))
    torch.save({"conv.weight": torch.ones(3), "x": Payload(mark)}, tmp_path / "mixed.pt")
    with zipfile.ZipFile(tmp_path / "script.ts", "w") as archive:  # as TorchScript lies
        archive.writestr("script/constants.pkl", plain)
        archive.writestr("script/data.pkl", plain)
        archive.writestr("script/code/x.py", "import os")
    contents = [plain, (tmp_path / "mixed.pt").read_bytes(), (tmp_path / "script.ts").read_bytes()]
    for number, content in enumerate([*contents, b"", b"\x80\x04."]):
        weights.write_bytes(content)
        with pytest.raises(ModelError, match="loading it could run code"):
            import_bundle(bundle, dense(), tmp_path / f"out{number}")
        assert not mark.exists()
        assert not (tmp_path / f"out{number}").exists()


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        ({"_target_": "os.system", "command": "touch {mark}"}, "names os.system"),
        ({"_target_": "builtins.exec", "source": "open('{mark}', 'w')"}, "names builtins.exec"),
        ({"_target_": "scripts.net.Own"}, "names scripts.net.Own"),
        ("$__import__('pathlib').Path('{mark}').touch()", "an expression, which would be run"),
        ({"_target_": "BasicUNet", "spatial_dims": "$open('{mark}', 'w')"}, "an expression"),
        ({"_target_": "BasicUNet", "features": ["@x", "$1"]}, "an expression"),
        ({"_target_": "$'BasicUNet'"}, "an expression"),
        ({"_target_": "UNet", "spatial_dims": 2}, "the bundle's network is UNet"),
        ({"_target_": "torch.hub.load"}, "the bundle's network is torch.hub.load"),
    ],
)
def test_a_bundle_whose_network_is_code_is_refused_and_the_code_does_not_run(
    bundle: Path, tmp_path: Path, definition: object, said: str
) -> None:
    mark = tmp_path / "ran"
    text = json.dumps(definition).replace("{mark}", str(mark))
    change(bundle / "configs" / "inference.json", network_def=json.loads(text))
    with pytest.raises(ModelError, match=said.replace("$", r"\$")):
        import_bundle(bundle, dense(), tmp_path / "out")
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


def test_a_target_that_would_run_code_anywhere_in_a_bundle_is_refused(
    bundle: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    train = {"preprocessing": [{"_target_": "subprocess.run", "args": ["touch", str(mark)]}]}
    (bundle / "configs" / "train.json").write_text(json.dumps(train))
    with pytest.raises(ModelError, match=r"names subprocess\.run"):
        import_bundle(bundle, dense(), tmp_path / "out")
    (bundle / "configs" / "train.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="not JSON that could be read"):
        import_bundle(bundle, dense(), tmp_path / "out")
    deep: object = {}
    for _ in range(200):
        deep = {"x": deep}
    (bundle / "configs" / "train.json").write_text(json.dumps(deep))
    with pytest.raises(ModelError, match="nested deeper"):
        import_bundle(bundle, dense(), tmp_path / "out")
    assert not mark.exists()


def test_expressions_of_a_bundle_that_are_not_its_network_are_left_alone(
    bundle: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    expression = f"$__import__('pathlib').Path({str(mark)!r}).touch()"
    change(bundle / "configs" / "inference.json", imports=[expression], run=[expression])
    (bundle / "configs" / "logging.conf").write_text("[loggers]\nkeys=root\n")
    import_bundle(bundle, None, tmp_path / "out")
    assert not mark.exists()
    assert load_predictor(tmp_path / "out", "cpu").contract.seen is None


def test_a_small_file_asks_for_no_large_network(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(dense())
    huge = study_of("segmentation", model={"network": "basic-unet", "features": [8192] * 6})
    write_bundle(open_model_folder(model), tmp_path / "bundle")
    contract = json.loads((model / "contract.json").read_text())
    change(
        tmp_path / "bundle" / "configs" / "wardround.json",
        study=json.loads(huge.to_json()),
        study_digest=huge.digest,
    )
    assert contract["study_digest"] != huge.digest
    with pytest.raises(ModelError, match="do not fit the network"):
        import_bundle(tmp_path / "bundle", None, tmp_path / "out")


def rewritten(folder: Path) -> None:
    """Make the digest fit again, as whoever changes a model would."""
    model_folder._written_digest(folder)


def test_a_changed_model_is_found_and_one_made_to_fit_again_has_no_signature(
    make_model: MakeModel, tmp_path: Path
) -> None:
    model, key = make_model(study_of()), Ed25519PrivateKey.generate()
    sign_model_folder(model, key)
    assert open_model_folder(model, key.public_key()).signed_by is not None
    for name in ("contract.json", "metrics.json", "card.md", "licence.txt", "weights.safetensors"):
        copy = tmp_path / f"copy-{name}"
        shutil.copytree(model, copy)
        data = bytearray((copy / name).read_bytes())
        data[-2] ^= 1
        (copy / name).write_bytes(bytes(data))
        with pytest.raises(ModelError, match=f"{name} of the model was changed"):
            open_model_folder(copy)
        rewritten(copy)
        with pytest.raises(ModelError, match="the signature does not fit"):
            open_model_folder(copy)
        (copy / "signature.json").unlink()
        with pytest.raises(ModelError, match="nobody has signed"):
            open_model_folder(copy, key.public_key())
        sign = Ed25519PrivateKey.generate()
        if name in ("card.md", "licence.txt"):
            sign_model_folder(copy, sign)
            with pytest.raises(ModelError, match="signed with another key"):
                open_model_folder(copy, key.public_key())


def test_a_model_folder_holds_nothing_but_a_model(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(study_of())
    (model / "model.pkl").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(ModelError, match=r"holds 'model.pkl', which no model has"):
        open_model_folder(model)
    (model / "model.pkl").unlink()
    (model / "card.md").unlink()
    (model / "card.md").symlink_to("/etc/hostname")
    with pytest.raises(ModelError, match="not a plain file"):
        open_model_folder(model)
    (model / "card.md").unlink()
    with pytest.raises(ModelError, match=r"lacks card\.md"):
        open_model_folder(model)
    assert not (tmp_path / "ran").exists()


def test_a_contract_that_is_not_one_is_refused(make_model: MakeModel) -> None:
    model = make_model(study_of())
    contract = json.loads((model / "contract.json").read_text())
    study = contract["study"]
    cases: list[tuple[dict[str, object], str]] = [
        ({"format": 2}, "not what this version writes"),
        ({"surprise": 1}, "not what this version writes"),
        ({"name": "a\x1b[2Jb"}, "is refused"),
        ({"study": {**study, "model": {"network": "os.system"}}}, "unknown network"),
        ({"study": {**study, "data": {**study["data"], "classes": ["x", "y"]}}}, "not the one"),
        ({"temperature": 0}, "not what this version writes"),
    ]
    for changes, said in cases:
        (model / "contract.json").write_text(json.dumps({**contract, **changes}))
        rewritten(model)
        with pytest.raises(ModelError, match=said):
            open_model_folder(model)
    other = study_of(model={"features": [6, 8]})
    changed = {"study": json.loads(other.to_json()), "study_digest": other.digest}
    (model / "contract.json").write_text(json.dumps({**contract, **changed}))
    rewritten(model)
    with pytest.raises(ModelError, match="do not fit the network"):
        open_model_folder(model).network()
    save_model(model / "weights.safetensors", {"x": torch.ones(1)}, {})
    rewritten(model)
    with pytest.raises(ModelError, match="not those that the contract speaks of"):
        load_predictor(model, "cpu")
    assert Contract.model_fields.keys() >= {"study", "seen", "temperature"}
