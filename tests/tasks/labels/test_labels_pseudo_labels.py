"""Images without labels: views, the teacher's labels, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dense_imb.data.epochs.views import photometric, rand_augment
from dense_imb.data.images.labelled import IGNORED
from dense_imb.data.labels.classified import WholeImages, vary
from dense_imb.data.labels.tables import open_whole_images
from dense_imb.tasks.labels.pseudo_labels import LabelsPseudoLabels
from dense_imb.tasks.labels.recipe import open_classified, split_labelled
from dense_imb.tasks.labels.task import LabelsTask
from dense_imb.tasks.mean_teacher import StrongViews
from dense_imb.tasks.recipe import build_task
from tests.runs.labelled_pictures import of_table, write_tables

CPU = torch.device("cpu")
SAMPLES, PLACES = np.array([7, 2, 9, 4]), np.array([0, 3, 3, 11])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tables(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def task(folder: str) -> LabelsTask:
    return build_task(of_table(folder, labelled_share=0.4))


@pytest.fixture(scope="module")
def rest(folder: str):
    _, rest = split_labelled(open_classified(of_table(folder).labels)[0], 0.4)
    return rest


class Answering(nn.Module):
    """Gives images by their number the logits of a list."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits, self.n_seen = torch.tensor(logits), 0

    def forward(self, shown: torch.Tensor) -> torch.Tensor:
        first, self.n_seen = self.n_seen, self.n_seen + len(shown)
        return self.logits[first : self.n_seen]


def test_the_rest_shares_no_image_with_the_labelled_part(task, rest):
    assert not set(task.train.numbers) & set(rest.numbers)


def test_weak_views_vary_as_labelled_images_do(task, rest):
    unlabelled = LabelsPseudoLabels(task, rest)
    views = unlabelled.views(SAMPLES, PLACES, 2, CPU)
    options = {"padding": task.padding, "flips": task.flips, "seed": task.seed}
    wanted = vary(rest.images(PLACES), SAMPLES, epoch=2 + 2**30, **options)
    np.testing.assert_array_equal(views.images, wanted)
    assert torch.equal(views.shown, task.reading.shown(wanted, CPU))
    assert (views.images != vary(rest.images(PLACES), SAMPLES, epoch=2, **options)).any()


def test_strong_views_are_of_the_bytes_of_the_weak_ones(task, rest):
    for strong in ("auto", "randaugment", "photometric", "none"):
        unlabelled = LabelsPseudoLabels(task, rest, strong=StrongViews(strong, magnitude=12))
        views = unlabelled.views(SAMPLES, PLACES, 2, CPU)
        pseudo, _ = unlabelled.label_views(Answering([[0.0, 0, 0]] * 4), views, 0.9)
        options = {"seed": task.seed, "epoch": 2 + 2**30}
        wanted = views.shown
        if strong == "photometric":
            wanted = photometric(views.shown, SAMPLES, **options)
        elif strong != "none":
            bytes_ = torch.from_numpy(views.images)
            augmented = rand_augment(bytes_, SAMPLES, magnitude=12, **options)
            wanted = task.reading.shown(augmented.numpy(), CPU)
        assert torch.equal(pseudo.shown, wanted)
        assert torch.equal(pseudo.shown, views.shown) == (strong == "none")


def test_views_of_a_sample_are_the_same_whatever_the_batch(task, rest):
    unlabelled = LabelsPseudoLabels(task, rest)
    teacher = Answering([[0.0, 0, 0]] * 99)
    together, _ = unlabelled.label_views(teacher, unlabelled.views(SAMPLES, PLACES, 1, CPU), 0.9)
    torch.manual_seed(3)
    for i in range(4):
        one = unlabelled.views(SAMPLES[i : i + 1], PLACES[i : i + 1], 1, CPU)
        alone, _ = unlabelled.label_views(teacher, one, 0.9)
        assert torch.equal(alone.shown[0], together.shown[i])
    other, _ = unlabelled.label_views(teacher, unlabelled.views(SAMPLES, PLACES, 2, CPU), 0.9)
    assert not torch.equal(other.shown, together.shown)


def test_a_label_is_the_likeliest_class_of_a_sure_teacher(task, rest):
    unlabelled = LabelsPseudoLabels(task, rest, nn.CrossEntropyLoss(), strong=StrongViews("none"))
    teacher = Answering([[9.0, 0, 0], [0, 1, 0], [0, 0, 9], [0, 0, 0]])
    views = unlabelled.views(SAMPLES, PLACES, 0, CPU)
    pseudo, sure = unlabelled.label_views(teacher, views, 0.95)
    assert pseudo.label.tolist() == [0, IGNORED, 2, IGNORED]
    assert sure.sum() == 0.5
    output = torch.randn(4, 3)
    wanted = nn.functional.cross_entropy(output[[0, 2]], torch.tensor([0, 2]))
    torch.testing.assert_close(unlabelled.cost(output, pseudo), wanted)


def test_the_teacher_is_as_sure_as_the_scale_of_its_logits_says(folder, rest):
    loss = "LDAMLoss()"
    scaled = build_task(
        of_table(folder, loss=loss, model={"options": {"depth": 8, "width": 4, "head": "cosine"}})
    )
    assert scaled.reading.scale > 1
    unlabelled = LabelsPseudoLabels(scaled, rest, strong=StrongViews("none"))
    teacher = Answering([[0.9, 0.1, 0.0]])
    views = unlabelled.views(SAMPLES[:1], PLACES[:1], 0, CPU)
    assert unlabelled.label_views(teacher, views, 0.95)[0].label.tolist() == [0]


def test_content_is_the_likeliest_class_of_every_image(task, rest):
    unlabelled = LabelsPseudoLabels(task, rest)
    generator = torch.Generator().manual_seed(0)
    logits = 0.1 * torch.randn(len(rest), 3, generator=generator)  # sure of none
    whole = unlabelled.content(Answering(logits.tolist()), np.arange(len(rest)), CPU)
    np.testing.assert_array_equal(whole, logits.argmax(1)[:, None].numpy() == np.arange(3))
    task.batch_size, before = 5, task.batch_size
    parts = unlabelled.content(Answering(logits.tolist()), np.arange(len(rest)), CPU)
    task.batch_size = before
    np.testing.assert_array_equal(parts, whole)


def test_words_tell_images_and_views_apart(task, rest):
    described = LabelsPseudoLabels(task, rest).describe()
    assert LabelsPseudoLabels(task, rest).describe() == described
    others = [
        LabelsPseudoLabels(task, rest.subset([*range(1, len(rest)), 0])),
        LabelsPseudoLabels(task, task.train),
        LabelsPseudoLabels(task, rest, strong=StrongViews("none")),
        LabelsPseudoLabels(task, rest, strong=StrongViews(magnitude=3)),
    ]
    assert described not in {other.describe() for other in others}


def test_a_folder_and_a_table_hold_the_same_images(folder, task):
    found = open_whole_images(f"{folder}/images", task.reading.size)
    names = [Path(found.source.name(i)).name for i in range(len(found))]
    assert names == sorted(names)
    assert len(found) == len(list(Path(folder, "images").iterdir()))
    listed = open_whole_images(f"{folder}/train.csv", task.reading.size, images=f"{folder}/images")
    assert len(listed) == 47
    place = names.index(Path(listed.source.name(5)).name)
    np.testing.assert_array_equal(found.image(place), listed.image(5))
    unlabelled = LabelsPseudoLabels(task, found)
    assert unlabelled.n_images == len(found)


def test_labels_of_a_table_are_not_read(folder, tmp_path):
    names = Path(folder, "train.csv").read_text().splitlines()
    (tmp_path / "names.csv").write_text("\n".join(line.split(",")[0] for line in names))
    (tmp_path / "odd.csv").write_text("\n".join(f"{line.split(',')[0]},-7 %" for line in names))
    digests = {
        open_whole_images(path, images=f"{folder}/images").digest()
        for path in (tmp_path / "names.csv", tmp_path / "odd.csv", f"{folder}/train.csv")
    }
    assert len(digests) == 1


def test_images_of_other_sizes_are_resized(folder, tmp_path):
    from PIL import Image

    Image.new("L", (50, 31), 9).save(tmp_path / "a.PNG")
    Image.new("RGB", (24, 24)).save(tmp_path / "b.jpg")
    found = open_whole_images(tmp_path, (24, 24))
    assert found.images(range(2)).shape == (2, 3, 24, 24)
    with pytest.raises(ValueError, match="Expected images of one size"):
        open_whole_images(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Expected images without labels \(.*\) in .*, got none"):
        open_whole_images(tmp_path)
    (tmp_path / "LICENSE.txt").write_text("free")
    (tmp_path / ".hidden.png").write_text("")
    with pytest.raises(ValueError, match="got none"):
        open_whole_images(tmp_path)
    with pytest.raises(ValueError, match=r"Expected a folder of images, or a CSV file"):
        open_whole_images(tmp_path / "nowhere")


def test_files_that_are_no_images_are_named(folder, tmp_path):
    from PIL import Image

    Image.new("RGB", (24, 24)).save(tmp_path / "a.png")
    (tmp_path / "LICENSE.txt").write_text("free")
    assert len(open_whole_images(tmp_path)) == 1
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"got b.png, which can't be read"):
        open_whole_images(tmp_path, (24, 24))
    for k in range(4):
        (tmp_path / f"c{k}.zip").write_bytes(b"")
    with pytest.raises(ValueError, match=r"got b.png, c0.zip, c1.zip and 2 more"):
        open_whole_images(tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"strong": StrongViews("hits")},
            "randaugment, photometric or none for whole images, got hits",
        ),
        ({"strong": StrongViews("weak")}, "unlabelled.strong"),
        ({"loss": nn.MSELoss()}, "loss of logits for the pseudo-labels"),
        ({"strong": StrongViews(magnitude=31)}, "magnitude"),
        ({"strong": StrongViews(operations=-1)}, "operations"),
    ],
)
def test_what_teaches_nothing_is_refused(task, rest, options, told):
    with pytest.raises(ValueError, match=told):
        LabelsPseudoLabels(task, rest, **options)


def test_other_images_are_refused(task, rest, tmp_path):
    from PIL import Image

    Image.new("RGB", (20, 24)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"unlabelled images of \(24, 24\) pixels"):
        LabelsPseudoLabels(task, open_whole_images(tmp_path))
    with pytest.raises(ValueError, match="got none"):
        LabelsPseudoLabels(task, WholeImages(rest.source, []))
