"""What a run is made from: plain numbers and names, as a YAML file holds them.

Nothing is imported here, so that `--help` does not wait for torch; `dense_imb.tasks.recipe`
makes things of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

SAVED = 75  # exit code of a run that was asked to stop and can go on; EX_TEMPFAIL of sysexits.h


@dataclass
class DataConfig:
    """Which events, and what happens to them each epoch.

    Args:
        train: hits files or patterns like "runs/*.h5".
        validation: hits files or patterns to validate on; without any the last events of `train`.
        validation_share: share of the events of `train` to validate on, without validation files.
        validation_events: most events to validate on; null takes all.
        signal: signal hits to keep, a number or a range [low, high]; null keeps all.
        noise: noise hits to add, a number or a range; 0 for files with noise in them.
        smear_x: Gaussian smearing of signal hits along x, in pixels.
        smear_y: Gaussian smearing of signal hits along y, in pixels.
        smear_t: Gaussian smearing of signal hits in time, in time steps.
        profiles: where noise falls: uniform, blob, burst, hot_pixels, hot_lines, with options as in
            "blob(width=5.0, weight=0.5)".
        measured_noise: a hits file of noise-only events to draw noise from, beside the profiles.
        measured_weight: weight of `measured_noise` beside the profiles, 1 each by default.
    """

    train: str | list[str] = field(default_factory=list)
    validation: str | list[str] = field(default_factory=list)
    validation_share: float = 0.1
    validation_events: int | None = 2000
    signal: int | list[int] | None = None
    noise: int | list[int] = 0
    smear_x: float = 0.0
    smear_y: float = 0.0
    smear_t: float = 0.0
    profiles: list[str] = field(default_factory=lambda: ["uniform"])
    measured_noise: str | None = None
    measured_weight: float = 1.0


@dataclass
class ImagesConfig:
    """Images with a mask each, 2-D or 3-D, in place of hits: they train a segmenter.

    Args:
        train: a folder of images (png, jpg, tif, npy, nii.gz), or an HDF5 file with data sets
            image and mask.
        masks: the folder of their masks, of the same names.
        validation: images to validate on, as of `train`; without any a share of `train`.
        validation_masks: the folder of the masks of `validation`.
        validation_share: share of the images of `train` to validate on, where no others are given;
            the same images whatever the seed.
        test_share: share of the images of `train` that no run sees, for tests; the same images
            whatever the seed.
        labels: which value of a mask is which class, [0, 255] say; by default values are classes.
        ignore_index: value of the mask pixels that are left out.
        n_classes: number of classes; by default the largest label and one more.
        names: names of the classes, the background first; by default those in the HDF5 file.
        patch: size of the crops to train on, [128, 128] say; by default at most 128 a side, 64 in
            3-D.
        patches: number of crops of each image in an epoch.
        foreground: share of the crops that are drawn for a pixel of a class, every class of the
            image but the first alike; the others fall anywhere.
        flips: mirror half of the crops along each axis.
    """

    train: str | None = None
    masks: str | None = None
    validation: str | None = None
    validation_masks: str | None = None
    validation_share: float = 0.2
    test_share: float = 0.0
    labels: list[int] | None = None
    ignore_index: int | None = None
    n_classes: int | None = None
    names: list[str] | None = None
    patch: list[int] | None = None
    patches: int = 4
    foreground: float = 0.5
    flips: bool = True


@dataclass
class TableConfig:
    """Image files with a label each in a CSV file, in place of hits: they train a classifier.

    Args:
        train: the CSV file, whose first line names the columns.
        images: the folder that its file names are of; by default that of the CSV file.
        validation: another CSV file, to validate on; without any a share of each class of `train`
            is held out.
        validation_images: folder that its file names are of; by default that of `images`.
        validation_share: share of each class of `train` held out, where no other CSV file is
            given; the same images whatever the seed.
        name_column: column of the file names, with or without suffix; the first one by default.
        label_column: column of the labels; the second one by default.
        group_column: images of one value there, of one patient say, are held out together.
        classes: the names of the classes, in an order; by default labels are 0, 1, 2 and so on.
        size: height and width that images are resized to; none where all have one size.
        padding: largest shift of an image in training, in pixels; an eighth of its shorter side
            by default.
        flips: mirror half of the images in training.
        many: a class with more training images is of the head.
        few: a class with fewer training images is of the tail.
    """

    train: str | None = None
    images: str | None = None
    validation: str | None = None
    validation_images: str | None = None
    validation_share: float = 0.2
    name_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    classes: list[str] | None = None
    size: list[int] | None = None
    padding: int | None = None
    flips: Literal["none", "horizontal", "both"] = "horizontal"
    many: float = 100.0
    few: float = 20.0


@dataclass
class CifarConfig:
    """CIFAR-10 or CIFAR-100, long-tailed, in place of hits: they train a classifier.

    Args:
        path: cifar-10-python.tar.gz, cifar-100-python.tar.gz, the binary ones, or the folder that
            one was unpacked in.
        imb_ratio: images of the largest class over those of the smallest; 100 and 0.01 mean the
            same, 1 is the balanced data set.
        profile: sizes of the classes between: exponential, or step with half of the classes small.
        validation_share: share of each class of the training images held out; with 0 the test
            images are validated on, as published tables do.
        padding: largest shift of an image in training, in pixels.
        flips: mirror half of the images in training.
        many: a class with more training images is of the head.
        few: a class with fewer training images is of the tail.
    """

    path: str | None = None
    imb_ratio: float = 1.0
    profile: Literal["exponential", "step"] = "exponential"
    validation_share: float = 0.0
    padding: int = 4
    flips: Literal["none", "horizontal", "both"] = "horizontal"
    many: float = 100.0
    few: float = 20.0


@dataclass
class ModelConfig:
    """The network.

    Args:
        name: network to train: fast_unet, autoencoder, smp:Unet/resnet18, monai:UNet and their
            like; of whole images resnet32, or timm:resnet18 and its like.
        options: options of the network, by name.
        channels: what the network is shown of each hit: gapped, hit, fourier.
        threshold: r of the gapped values r + (1 - r) t / T of hits.
        output: what the network gives for hits: score, value or both.
    """

    name: str = "fast_unet"
    options: dict[str, Any] = field(default_factory=dict)
    channels: list[str] = field(default_factory=lambda: ["gapped", "hit", "fourier"])
    threshold: float = 0.5
    output: Literal["score", "value", "both"] = "score"


@dataclass
class OptimizerConfig:
    """What moves the weights.

    Args:
        name: optimizer: adamw, adam or sgd (with momentum 0.9).
        learning_rate: learning rate at its peak.
        weight_decay: decay of all weights.
        schedule: course of the learning rate: one-cycle, cosine or constant.
        clip: largest norm of the gradient; larger ones are scaled down.
        parts: whether all weights move, or those of the head only, the last layer.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = 6e-3
    weight_decay: float = 0.01
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    clip: float = 1.0
    parts: Literal["all", "head"] = "all"


@dataclass
class SamplingConfig:
    """How often images, or events of hits, are shown, by the classes that they hold.

    Args:
        kind: instance shows each once an epoch; class, sqrt and power draw an image of class k,
            of n_k images, with a weight n_k^-1, n_k^-0.5 and n_k^-power; progressive goes from
            instance to class; mean is class, reverse n_k^-2.
        power: exponent of kind power; the cube root of the literature is 0.125 in its code.
        epochs: number of epochs after which progressive has arrived at class; by default those of
            the run.
    """

    kind: Literal["instance", "class", "sqrt", "power", "progressive", "mean", "reverse"] = (
        "instance"
    )
    power: float = 0.125
    epochs: int | None = None


@dataclass
class MixingConfig:
    """Mixing of each sample with another one, and of their targets; the loss must take both.

    Args:
        kind: none, mixup (with another one of the batch), balanced-mixup (with one drawn by
            class) or unimix (with one of the batch, in a share by the sizes of their classes).
        alpha: parameter of the Beta distribution of the shares, above 0; the smaller, the purer.
        tau: for unimix: partners are drawn with a weight n_k^tau.
        hits: events are mixed as frames (linear), or as the union of thinned hits (union), which
            stay sharp, as do the targets.
    """

    kind: Literal["none", "mixup", "balanced-mixup", "unimix"] = "none"
    alpha: float = 0.2
    tau: float = -1.0
    hits: Literal["linear", "union"] = "linear"


@dataclass
class UnlabelledConfig:
    """Images, or events of hits, without labels, learnt from beside the labelled ones.

    A teacher, the running mean of the network, labels weak views where it is sure; the network
    learns these labels on strong views of the same images.

    Args:
        train: files as the labelled ones are: a folder of images, an HDF5 file or hits files;
            images that are validated or tested on are left out.
        rest: learn from the training images, or events, that `labelled_share` leaves out.
        ratio: unlabelled samples in a step for each labelled one.
        weight: weight of the loss of the teacher's labels, beside that of the others.
        ramp: share of the steps over which this weight grows from 0.
        threshold: probability from which on the teacher is sure.
        decay: how much of the teacher stays as it was, each step.
        sampling: how often images are shown, by the teacher's labels, see `sampling.kind`.
        loss: loss of the teacher's labels; by default that of the others.
        strong: strong views: randaugment (torchvision's, of images of bytes in 2-D), photometric
            (any image), hits (lit pixels lost and added, of sparse frames; of hits the only one),
            none; auto takes the first that fits.
        operations: RandAugment's number of operations, one after the other.
        magnitude: RandAugment's strength of each, 0 to 30.
    """

    train: str | list[str] | None = None
    rest: bool = False
    ratio: int = 1
    weight: float = 1.0
    ramp: float = 0.2
    threshold: float = 0.95
    decay: float = 0.99
    sampling: Literal["instance", "class", "sqrt", "power", "mean", "reverse"] = "instance"
    loss: str | None = None
    strong: Literal["auto", "randaugment", "photometric", "hits", "none"] = "auto"
    operations: int = 2
    magnitude: int = 9


@dataclass
class SecondConfig:
    """A second stage, from the best network of the first one on; labelled images only.

    Args:
        steps: number of steps; 0 trains in one stage.
        loss: loss of the second stage; by default that of the first.
        parts: train all weights, or those of the head only, the last layer.
        learning_rate: learning rate at its peak; by default a tenth of the first stage's, of the
            head alone as much.
        sampling: as of the first stage; by class unless said otherwise.
        mixing: as of the first stage; none unless said otherwise.
    """

    steps: int = 0
    loss: str | None = None
    parts: Literal["all", "head"] = "all"
    learning_rate: float | None = None
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig("class"))
    mixing: MixingConfig = field(default_factory=MixingConfig)


@dataclass
class TrainConfig:
    """A whole run.

    Args:
        data: which hits, and what happens to them: a denoiser is trained.
        images: which images, in place of hits: a segmenter is trained.
        table: which images with a label each, in place of hits: a classifier is trained.
        cifar: CIFAR, long-tailed, in place of hits: a classifier is trained.
        sampling: which images or events are shown how often.
        mixing: how samples and their targets are mixed.
        labelled_share: share of the training images, or events, whose labels are used; of a
            classifier of each class. The same ones whatever the seed; the others are left out.
        unlabelled: what is learnt from without labels.
        second: a second stage of training.
        model: the network, what it is shown and what it gives.
        loss: loss to train with: a name of `dense-imb losses` with options,
            "HardMiningLoss(gamma=0.5, balance={})", a code like hmld10000000g05a75,
            package.module:Class, or a sum of such, "FocalLoss + 0.5 * monai.losses:DiceLoss(..)".
        value_loss: for hits: loss of the value, with a model.output of both.
        feature_loss: loss of the features that the last layer sees, beside `loss`: "RangeLoss"
            with options; none by default.
        target: for hits: what to find, the signal hits or the full pattern they were drawn from.
        pixels: for hits: whether the loss sees the lit pixels only, or the whole frame.
        optimizer: what moves the weights.
        steps: number of steps of the optimizer.
        batch_size: events or crops in a step, over all processes together.
        seed: seed of all randomness.
        validate_every: number of steps between two validations; a tenth of all steps by default.
        save_every: number of seconds between two checkpoints.
        retention: for hits: share of the signal to keep, at which networks are compared.
        patience: stop after so many validations without a better score; never by default.
        collapse: what to do when the network ranks no better than chance.
        precision: number format of the network while it trains: "no" is float32, "auto" is bf16
            where the device has instructions for it.
        trackers: experiment trackers to send scores to, of those installed: tensorboard, mlflow,
            wandb, ...
        compile: run the network through torch.compile.
    """

    data: DataConfig = field(default_factory=DataConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    table: TableConfig = field(default_factory=TableConfig)
    cifar: CifarConfig = field(default_factory=CifarConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    labelled_share: float = 1.0
    unlabelled: UnlabelledConfig = field(default_factory=UnlabelledConfig)
    second: SecondConfig = field(default_factory=SecondConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: str = "CrossEntropyLoss"
    value_loss: str = "ACBMSELoss"
    feature_loss: str | None = None
    target: Literal["signal", "pattern"] = "signal"
    pixels: Literal["lit", "frame"] = "lit"
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    steps: int = 2000
    batch_size: int = 16
    seed: int = 0
    validate_every: int | None = None
    save_every: float = 60.0
    retention: float = 0.97
    patience: int | None = None
    collapse: Literal["warn", "stop", "roll-back"] = "warn"
    precision: Literal["no", "bf16", "auto"] = "no"
    trackers: list[str] = field(default_factory=list)
    compile: bool = False

    @property
    def is_semi_supervised(self) -> bool:
        """Whether anything is learnt from without labels."""
        return self.unlabelled.rest or bool(self.unlabelled.train)

    @property
    def trains_on_images(self) -> bool:
        """Whether it is a segmenter that is trained, else a denoiser or a classifier."""
        return self.images.train is not None

    @property
    def trains_on_classes(self) -> bool:
        """Whether it is a classifier that is trained."""
        return self.table.train is not None or self.cifar.path is not None
