"""The folder of a run: configuration, checkpoints, records, hashes, card; ONNX."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml

from dense_imb.engine.checkpoint import digest_of, load_checkpoint, save_checkpoint
from dense_imb.export.card import card_facts, render_card
from dense_imb.export.network import exportable
from dense_imb.export.write import METADATA, onnx_session
from dense_imb.runs import open_run, train
from dense_imb.runs.pretrained import Pretrained, pretrained
from dense_imb.runs.seen import HASHES, read_hashes
from tests.fuzz.format import Format, of_bytes, truncate
from tests.fuzz.mutate import (
    NUMBERS,
    TEXTS,
    any_value,
    mutated_bytes,
    mutated_text,
    mutated_tree,
)
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import clean_events, tiny, write_events


def make_run(folder: Path) -> None:
    """Train two steps on images."""
    beside = folder.parent / "beside"
    folders = write_folders(beside, 6, (32, 32))
    train(tiny_images(folders, steps=2, validate_every=2), folder / "images", is_quiet=True)


def make_runs(folder: Path) -> None:
    """Train two steps on images, and on hits."""
    make_run(folder)
    hits = write_events(folder.parent / "beside" / "hits.h5", clean_events(8))
    train(tiny(hits, steps=2, validate_every=2), folder / "hits", is_quiet=True)


# configuration


def read_config(path: Path) -> Any:
    """Open a run."""
    return repr(open_run(path).whole_config)


def change_config(rng: random.Random, path: Path) -> bool:
    """Change the text of a configuration, or its values."""
    place = path / "config.yaml"
    text = place.read_text()
    if rng.random() < 0.5:
        text = mutated_text(rng, text, marks="[]{}:,#&*!|>'\"%@`?- \n")
        place.write_bytes(text.encode("utf-8", "surrogatepass"))
    else:
        tree = mutated_tree(rng, yaml.safe_load(text))
        place.write_text(json.dumps(tree) if rng.random() < 0.5 else _dumped(tree, text))
    return False


def _dumped(tree: Any, other: str) -> str:
    try:
        return str(yaml.safe_dump(tree))
    except (RecursionError, ValueError):
        return other


class _Strict(yaml.SafeLoader):
    """Loader that refuses a name that is there twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len({repr(name) for name in names}) < len(names):
            raise yaml.YAMLError("a name twice")
        return super().construct_mapping(node, deep)


def check_config(path: Path, contents: list[Any]) -> str:
    """Find values that another one of the same name hides."""
    if contents == [None]:
        return ""
    try:
        yaml.load((path / "config.yaml").read_text(), _Strict)
    except yaml.YAMLError as problem:
        return f"a configuration was read that has {str(problem).splitlines()[0]}"
    return ""


# checkpoints


def read_checkpoint(path: Path) -> Any:
    """Open a run and its network."""
    trained = open_run(path).trained(device="cpu")
    return {name: value.numpy() for name, value in trained.network.state_dict().items()}


def read_last(path: Path) -> Any:
    """Load the checkpoint that training continues from."""
    return open_run(path).checkpoint("last")


def _checkpoints(path: Path) -> list[Path]:
    return sorted((path / "checkpoints").iterdir())


def change_checkpoint(rng: random.Random, path: Path) -> bool:
    """Change the bytes of a checkpoint, or of its digest."""
    place = rng.choice(_checkpoints(path))
    place.write_bytes(mutated_bytes(rng, place.read_bytes()))
    return True


def change_state(rng: random.Random, path: Path) -> bool:
    """Change the content of a checkpoint, whose digest is right."""
    place = rng.choice([one for one in _checkpoints(path) if one.suffix == ".pt"])
    if rng.random() < 0.3:
        place.write_bytes(mutated_bytes(rng, place.read_bytes()))
        digest_of(place).write_text(hashlib.sha256(place.read_bytes()).hexdigest())
    else:
        state = load_checkpoint(place)
        with contextlib.suppress(RuntimeError, ValueError):  # of a number too large for a type
            changed = _changed_state(rng, {**state, "setup": dict(state["setup"])})
            save_checkpoint(place, changed)
    if rng.random() < 0.5:  # or the digest of the network would refuse many
        (path / "validation_scores.json").unlink()
        shutil.rmtree(path / "natural", ignore_errors=True)
    return False


def _changed_state(rng: random.Random, state: dict[str, Any]) -> dict[str, Any]:
    part = rng.choice(("network", "setup", "setup", "top"))
    if part == "top":
        return dict(mutated_tree(rng, state))
    if part == "network":
        network = dict(state["network"])
        name = rng.choice([*network])
        value = network[name]
        network[name] = rng.choice((
            value.double(), value.half(), value.to(torch.complex64), value[None],
            torch.full_like(value, float(rng.choice(NUMBERS))), value.flatten()[:-1],
            value.to_sparse() if value.ndim else value, any_value(rng), value.to("meta"),
            torch.zeros(1).expand(1 << 40), value.long(),
        ))  # fmt: skip
        return {**state, "network": network}
    setup = state["setup"]
    name = rng.choice([*setup])
    value = setup[name]
    try:
        value = json.dumps(mutated_tree(rng, json.loads(value)))
    except (ValueError, TypeError, RecursionError):
        value = any_value(rng)
    return {**state, "setup": {**setup, name: value}}


# records


def read_metrics(path: Path) -> Any:
    """Read what a run says of itself."""
    run = open_run(path)
    return run.metrics, run.history, run.summary(), repr(run), run.format_sample_counts()


def read_scores(path: Path) -> Any:
    """Read the scores of a run, and its natural probabilities."""
    run = open_run(path)
    content = [run.natural, run.read_out, vars(run.scores())]
    return [*content, run.validation_events()] if run.kind.name == "hits" else content


def read_point(path: Path) -> Any:
    """Read the operating point of a run on hits."""
    run = open_run(path)
    return run.operating_point() if run.kind.name == "hits" else None


def change_record(rng: random.Random, path: Path) -> bool:
    """Change a record of a run: its text, its bytes, or its values."""
    kept = ("config.yaml", "environment.json")
    records = sorted(
        one for one in path.rglob("*") if one.suffix in (".json", ".csv") and one.name not in kept
    )
    place = rng.choice(records)
    change = rng.random()
    if change < 0.2:
        place.write_bytes(mutated_bytes(rng, place.read_bytes(), header=0))
    elif change < 0.5 or place.suffix == ".csv":
        text = mutated_text(rng, place.read_text())
        place.write_bytes(text.encode("utf-8", "surrogatepass"))
    else:
        place.write_text(json.dumps(mutated_tree(rng, json.loads(place.read_text()))))
    return False


# cards


def read_card(path: Path) -> Any:
    """Make the card of an export, from the records of the run."""
    facts = card_facts(exportable(open_run(path)), "model.onnx", any_size=True)
    return json.dumps(facts, allow_nan=False), render_card({**facts, "check": _CHECK})


_CHECK = {"max_difference": 0.0, "tolerance": 1e-3, "n_inputs": 1, "on": "nothing"}


def change_card(rng: random.Random, path: Path) -> bool:
    """Change what a card is made of: records, the configuration, the setup in the checkpoint."""
    rng.choice((change_record, change_config, change_state))(rng, path)
    return False


# safetensors


def make_safetensors(folder: Path) -> None:
    make_run(folder)
    weights = pretrained("arc").folder
    shutil.copytree(weights, folder / "arc")


def read_safetensors(path: Path) -> Any:
    """Read the hashes of samples of a run, or the weights of a network of the package."""
    if (path / HASHES).exists():
        hashes = read_hashes(open_run(path))
        assert hashes is not None
        return {name: vars(one) for name, one in hashes.items()}
    return Pretrained(path).trained(device="cpu").geometry


def _safetensors(path: Path) -> Path:
    return path / (HASHES if (path / HASHES).exists() else "best.safetensors")


def change_safetensors(rng: random.Random, path: Path) -> bool:
    """Change the bytes of a file of tensors."""
    return of_bytes(sealed=False, header=300)(rng, _safetensors(path))


def change_tensors(rng: random.Random, path: Path) -> bool:
    """Change the header of a file of tensors."""
    place = _safetensors(path)
    data = place.read_bytes()
    n = int.from_bytes(data[:8], "little")
    header = mutated_tree(rng, json.loads(data[8 : 8 + n]))
    text = json.dumps(header).encode()
    if rng.random() < 0.3:
        text = mutated_text(rng, text.decode()).encode("utf-8", "replace")
    size = rng.choice((len(text), len(text), len(text), 2**62, 0))
    place.write_bytes(size.to_bytes(8, "little") + text + data[8 + n :])
    return False


# ONNX


def make_onnx(folder: Path) -> None:
    rng = np.random.default_rng(0)
    helper = onnx.helper
    weight = onnx.numpy_helper.from_array(rng.random((2, 1, 3, 3), np.float32), "weight")
    image = helper.make_tensor_value_info("image", 1, ["batch", 1, "height", "width"])
    score = helper.make_tensor_value_info("score", 1, None)
    node = helper.make_node("Conv", ["image", "weight"], ["score"], pads=[1, 1, 1, 1])
    graph = helper.make_graph([node], "network", [image], [score], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    facts = {"format": "dense-imb-export", "version": 2, "inputs": [{"name": "image"}]}
    helper.set_model_props(model, {METADATA: json.dumps(facts)})
    onnx.save(model, str(folder / "model.onnx"))


def read_onnx(path: Path) -> Any:
    """Open a network in ONNX Runtime, with its facts."""
    session = onnx_session(path, 1)
    text = session.get_modelmeta().custom_metadata_map.get(METADATA, "{}")
    names = [one.name for one in session.get_inputs()]
    return names, text


def change_metadata(rng: random.Random, path: Path) -> bool:
    """Change the facts in a network, its names and its numbers."""
    model = onnx.load(str(path))
    (entry,) = model.metadata_props
    change = rng.randrange(4)
    if change == 0:
        entry.value = json.dumps(mutated_tree(rng, json.loads(entry.value)))
    elif change == 1:
        entry.value = re.sub("[\ud800-\udfff]", "x", mutated_text(rng, entry.value))
    elif change == 2:
        entry.key = re.sub("[\ud800-\udfff]", "x", rng.choice(TEXTS))
    else:
        weight = model.graph.initializer[0]
        weight.dims[rng.randrange(4)] = int(rng.choice(NUMBERS[:12]))
    path.write_bytes(model.SerializeToString())
    return False


FORMATS = {
    "YAML": Format(make_runs, (read_config,), (change_config,), check_config),
    "checkpoint": Format(
        make_runs, (read_checkpoint, read_last), (change_checkpoint, change_state, change_state)
    ),
    "records": Format(
        make_runs, (read_metrics, read_scores, read_point), (change_record,), seconds=20
    ),
    "card": Format(make_runs, (read_card,), (change_card,), seconds=20),
    "safetensors": Format(
        make_safetensors, (read_safetensors,), (change_safetensors, change_tensors)
    ),
    "ONNX": Format(
        make_onnx,
        (read_onnx,),
        (of_bytes(sealed=False, header=100), truncate, change_metadata),
        needs=("onnx", "onnxruntime"),
    ),
}
