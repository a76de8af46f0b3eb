"""What is validated or tested on is not learnt from without labels either, whatever the task."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from dense_imb.cli import main
from dense_imb.config import UnlabelledConfig
from dense_imb.data.images.labelled import open_labelled
from dense_imb.data.images.sources import digest_files
from dense_imb.data.images.unlabelled import find_copies, open_unlabelled
from dense_imb.data.labels.tables import FileImages
from dense_imb.hits import Events
from dense_imb.runs import open_run, train
from dense_imb.tasks.images.recipe import open_test_images
from dense_imb.tasks.recipe import build_task
from dense_imb.tasks.unlabelled import HeldOutWarning
from tests.runs.labelled_pictures import of_table, tiny_classes, write_cifar, write_tables
from tests.runs.pictures import lines, tiny_images, write_folders
from tests.runs.tiny import clean_events, tiny, write_events

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
OTHERS = 3  # images that no mask knows


def of(place: object, **options) -> UnlabelledConfig:
    return UnlabelledConfig(train=str(place), **options)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    return write_folders(tmp_path / "pictures", n=12)


@pytest.fixture
def everything(folders: tuple[str, str], tmp_path: Path) -> Path:
    """Copies of all images, by other names, and some more."""
    place = tmp_path / "everything"
    place.mkdir()
    for path in Path(folders[0]).iterdir():
        shutil.copy(path, place / f"copy{path.name}")
    for i, image in enumerate(lines(OTHERS, (40, 48), seed=9)[0]):
        Image.fromarray(image).save(place / f"other{i}.png")
    return place


def held_out(config, task) -> set[str]:
    """Names of the images that are validated and tested on."""
    tested = open_test_images(config.images).names if config.images.test_share else []
    return {*task.task.validation.names, *tested}


@pytest.mark.parametrize("test_share", [0.0, 0.25])
def test_masked_images_that_are_held_out_are_left_out(folders, test_share):
    images = {"test_share": test_share}
    config = tiny_images(folders, images=images, unlabelled=of(folders[0]))
    with pytest.warns(HeldOutWarning) as told:
        task = build_task(config)
    forbidden = held_out(config, task)
    assert len(forbidden) == (5 if test_share else 2)
    every = {path.stem for path in Path(folders[0]).iterdir()}
    assert {*task.unlabelled.images.names} == every - forbidden
    assert [str(one.message) for one in told] == [
        f"unlabelled.train: {len(forbidden)} of 12 images in {folders[0]} are left out, as a "
        "validation or a test must not be learnt from"
    ]


def test_copies_of_held_out_images_are_left_out(folders, everything):
    config = tiny_images(folders, images={"test_share": 0.25}, unlabelled=of(everything))
    with pytest.warns(HeldOutWarning, match=f"5 of {12 + OTHERS} images"):
        task = build_task(config)
    names = {*task.unlabelled.images.names}
    assert len(names) == 7 + OTHERS
    assert not names & {f"copy{name}" for name in held_out(config, task)}


def test_a_link_is_the_file_it_leads_to(folders, tmp_path):
    task = build_task(tiny_images(folders))
    (tmp_path / "links").mkdir()
    for path in Path(folders[0]).iterdir():
        (tmp_path / "links" / path.name).symlink_to(path)
    with pytest.warns(HeldOutWarning):
        found = build_task(tiny_images(folders, unlabelled=of(tmp_path / "links")))
    assert not {*found.unlabelled.images.names} & {*task.validation.names}


def test_images_of_a_validation_folder_are_left_out(folders, tmp_path):
    other = write_folders(tmp_path / "validation", n=4, seed=5)
    images = {"validation": other[0], "validation_masks": other[1]}
    for path in sorted(Path(other[0]).iterdir())[:3]:
        shutil.copy(path, Path(folders[0], f"x{path.name}"))
        shutil.copy(Path(other[1], path.name), Path(folders[1], f"x{path.name}"))
    config = tiny_images(folders, images=images, unlabelled=of(folders[0]))
    with pytest.warns(HeldOutWarning, match="3 of 15 images"):
        assert build_task(config).unlabelled.n_images == 12


def test_images_that_nothing_holds_out_are_all_kept_without_a_word(folders, tmp_path):
    other, _ = write_folders(tmp_path / "other", n=5, seed=9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = build_task(tiny_images(folders, unlabelled=of(other)))
    assert task.unlabelled.n_images == 5


def test_where_nothing_is_left_it_is_refused(folders, tmp_path, capsys):
    other, masks = write_folders(tmp_path / "other", n=4, seed=9)
    words = [
        "train",
        "images",
        "--out",
        str(tmp_path / "run"),
        "--images.train",
        folders[0],
        "--quiet",
    ]
    words += ["--images.masks", folders[1], "--images.validation", other]
    words += ["--images.validation_masks", masks, "--unlabelled.train", other]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith("dense-imb train images: error: unlabelled.train: Expected images in ")
    assert "that are neither validation nor test images, got none of 4" in told
    assert "--unlabelled.rest true" in told
    assert told.count("\n") == 1


def write_hdf5(path: Path, n: int = 12, seed: int = 0) -> str:
    image, mask = lines(n, (40, 48), seed=seed)
    with h5py.File(path, "w") as file:
        file["image"], file["mask"] = image, mask
    return str(path)


def test_numbers_of_one_hdf5_file_that_are_held_out_are_left_out(tmp_path):
    path = write_hdf5(tmp_path / "a.h5")
    images = {"train": path, "masks": None, "test_share": 0.25}
    config = tiny_images((path, ""), images=images, unlabelled=of(path))
    with pytest.warns(HeldOutWarning, match="5 of 12 images"):
        task = build_task(config)
    found = task.unlabelled.images
    assert {*map(int, found.names)} == {*range(12)} - {*map(int, held_out(config, task))}
    stored = lines(12, (40, 48))[0]
    for i, name in enumerate(found.names):
        np.testing.assert_array_equal(found.image(i)[0], stored[int(name)])
    shutil.copy(path, tmp_path / "copy.h5")
    with pytest.warns(HeldOutWarning, match="5 of 12 images"):
        build_task(tiny_images((path, ""), images=images, unlabelled=of(tmp_path / "copy.h5")))
    other = write_hdf5(tmp_path / "other.h5", 4, seed=3)
    config = tiny_images((path, ""), images=images, unlabelled=of(other))
    assert build_task(config).unlabelled.n_images == 4


def test_the_fingerprint_is_of_what_is_left(tmp_path):
    path = write_hdf5(tmp_path / "a.h5")
    whole = open_unlabelled(path, n_channels=1, spatial_dims=2)
    data = open_labelled(path, n_classes=2)
    digests = {whole.without([data.subset(some)]).fingerprint() for some in ([0], [1], [0, 1])}
    assert len({whole.fingerprint(), *digests}) == 4
    assert whole.without([]).fingerprint() == digest_files([Path(path)])  # as it was before
    images, masks = write_folders(tmp_path, n=5)
    files = open_unlabelled(images, n_channels=1, spatial_dims=2)
    left = files.without([open_labelled(images, masks, n_classes=2).subset([1, 3])])
    assert left.names == ["000", "002", "004"]
    before = left.fingerprint()
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(Path(images, "001.png"))
    assert left.fingerprint() == before
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(Path(images, "002.png"))
    assert left.fingerprint() != before


def test_a_run_goes_on_and_learns_from_the_same_images(folders, everything, tmp_path, capsys):
    out = tmp_path / "run"
    words = [
        "train",
        "images",
        "--out",
        str(out),
        "--images.train",
        folders[0],
        "--images.masks",
        folders[1],
    ]
    words += ["--images.test_share", "0.25", "--images.patch", "32", "32", "--batch_size", "4"]
    words += ["--quiet", "--report", "false", "--model.options", json.dumps({"widths": [4, 8]})]
    words += ["--steps", "6", "--save_every", "2", "--unlabelled.train", str(everything)]
    assert main(words) == 0
    told = capsys.readouterr().err
    assert told.count("dense-imb train images: warning: unlabelled.train: 5 of 15 images") == 1
    assert "10 images" in open_run(out).checkpoint("last")["setup"]["unlabelled"]
    wanted = (out / "last.safetensors").read_bytes()
    for path in out.glob("checkpoints/*-*6.pt"):
        path.unlink()
    assert main([*words, "--resume"]) == 0
    assert (out / "last.safetensors").read_bytes() == wanted
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(everything / "other0.png")
    capsys.readouterr()
    assert main([*words, "--resume"]) == 2
    assert "unlabelled: 10 images" in capsys.readouterr().err


def table_of(folder: Path) -> str:
    return write_tables(folder / "table", (12, 8, 6))


def test_classified_images_that_are_held_out_are_left_out(tmp_path):
    folder = table_of(tmp_path)
    shutil.copytree(f"{folder}/images", tmp_path / "copies")
    for place in (f"{folder}/images", tmp_path / "copies"):
        n = len(list(Path(place).iterdir()))
        with pytest.warns(HeldOutWarning) as told:
            task = build_task(of_table(folder, unlabelled=of(place)))
        validation, left = task.task.validation, task.unlabelled._images
        assert isinstance(validation.source, FileImages)
        forbidden = {validation.source.paths[i].name for i in validation.numbers}
        assert forbidden
        assert str(told[0].message).startswith(f"unlabelled.train: {len(forbidden)} of {n} images")
        names = {Path(left.source.name(i)).name for i in left.numbers}
        assert len(names) == len(left) == n - len(forbidden)
        assert not names & forbidden


def test_images_of_a_second_table_are_left_out(tmp_path):
    folder = table_of(tmp_path)
    head, *rows = Path(folder, "train.csv").read_text().splitlines()
    parts = {"train": rows[::2], "validation": rows[1::2]}
    for name, part in parts.items():
        (tmp_path / f"{name}.csv").write_text("\n".join([head, *part]))
    tables = {name: str(tmp_path / f"{name}.csv") for name in parts}
    n = len(list(Path(folder, "images").iterdir()))
    config = of_table(folder, labels=tables, unlabelled=of(f"{folder}/images"))
    with pytest.warns(HeldOutWarning):
        assert build_task(config).unlabelled.n_images == n - len(parts["validation"])
    (tmp_path / "held").mkdir()
    source = build_task(of_table(folder, labels=tables)).validation.source
    for path in source.paths:
        shutil.copy(path, tmp_path / "held")
    with pytest.raises(ValueError, match=r"unlabelled.train: Expected images .* got none of"):
        build_task(of_table(folder, labels=tables, unlabelled=of(tmp_path / "held")))


def test_cifar_needs_nothing(tmp_path):
    path = write_cifar(tmp_path)
    (tmp_path / "more").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "more" / "a.png")
    config = tiny_classes(labels={"train": path}, unlabelled=of(tmp_path / "more"))
    assert build_task(config).unlabelled.n_images == 1


def test_hits_that_are_held_out_are_refused(tmp_path):
    path = write_events(tmp_path / "a.h5", clean_events(24))
    other = write_events(tmp_path / "b.h5", clean_events(8, seed=4))
    third = write_events(tmp_path / "c.h5", clean_events(8, seed=5))
    events = clean_events(24)
    raw = Events(events.geometry, events.offset, events.x, events.y, events.t)
    shutil.copy(path, tmp_path / "copy.h5")
    (tmp_path / "link.h5").symlink_to(path)
    copies = [path, tmp_path / "copy.h5", tmp_path / "link.h5"]
    copies += [write_events(tmp_path / "raw.h5", raw)]
    wanted = r"unlabelled.train: Expected other hits files than those of hits.train, whose last"
    for place in copies:
        with pytest.raises(ValueError, match=wanted) as told:
            build_task(tiny(path, unlabelled=of(place)))
        assert "`labelled_share=0.1` with `unlabelled.rest=true`" in str(told.value)
    both = UnlabelledConfig(train=[third, path])
    with pytest.raises(ValueError, match=wanted):
        build_task(tiny([other, path], unlabelled=both))
    data = {"validation": other}
    with pytest.raises(ValueError, match=r"those of hits.validation, which are validated on"):
        build_task(tiny(path, hits=data, unlabelled=of(other)))
    with pytest.raises(ValueError, match=r"those of hits.train, which are learnt from already"):
        build_task(tiny(path, hits=data, unlabelled=of(path)))
    assert build_task(tiny(path, hits=data, unlabelled=of(third))).unlabelled.n_images == 8


def test_without_stored_digests_paths_tell(tmp_path):
    path = write_events(tmp_path / "a.h5", clean_events(24))
    other = write_events(tmp_path / "b.h5", clean_events(8, seed=4))
    for place in (path, other):
        with h5py.File(place, "r+") as file:
            del file.attrs["content_hash"]
    with pytest.raises(ValueError, match=r"Expected other hits files"):
        build_task(tiny(path, unlabelled=of(path)))
    assert build_task(tiny(path, unlabelled=of(other))).unlabelled.n_images == 8


def test_errors_name_the_option(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "colours").mkdir()
    np.save(tmp_path / "colours" / "a.npy", np.zeros((40, 48, 3), np.uint8))
    hits = write_events(tmp_path / "a.h5", clean_events(24))
    table = table_of(tmp_path)
    cases = [
        (tiny_images(folders, unlabelled=of(tmp_path / "empty")), "images"),
        (tiny_images(folders, unlabelled=of(tmp_path / "gone")), "images in .*gone"),
        (tiny_images(folders, unlabelled=of(hits)), "data sets `image`"),
        (tiny_images(folders, unlabelled=of(tmp_path / "colours")), ".* with 1 channel in 2-D"),
        (of_table(table, unlabelled=of(tmp_path / "empty")), "images without labels"),
        (of_table(table, unlabelled=of(tmp_path / "gone")), "a folder of images, or a CSV"),
        (tiny(hits, unlabelled=of(tmp_path / "empty")), "a file at .*, got a folder"),
        (tiny(hits, unlabelled=of(tmp_path / "gone.h5")), "a hits file at .*gone.h5, got none"),
        (tiny(hits, unlabelled=of(tmp_path / "gone*.h5")), r"files that match .*gone\*"),
    ]
    for config, told in cases:
        with pytest.raises(ValueError, match=rf"^unlabelled\.train: Expected {told}") as raised:
            build_task(config)
        assert "\n" not in str(raised.value)


def test_images_without_masks_are_told_what_they_are_good_for(folders):
    Path(folders[1], "003.png").unlink()
    with pytest.raises(ValueError, match=r"003.png; add them, or .*`unlabelled.train=FOLDER`\.$"):
        train(tiny_images(folders), "nowhere")


def test_copies_have_the_same_bytes_and_not_only_the_same_size_and_ends(tmp_path):
    base = bytearray(3 << 20)
    paths = [tmp_path / name for name in ("held", "alike", "copy", "short")]
    for path in paths[:3]:
        path.write_bytes(base)
    paths[3].write_bytes(base[1:])
    base[len(base) // 2] = 1  # where the digest of both ends does not look
    paths[1].write_bytes(base)
    assert find_copies(paths[1:], paths[:1]) == [1]
    assert find_copies(paths, paths[:1]) == [0, 2]
