"""Configuration of a run: plain numbers and names, as a YAML file holds them.

This module imports nothing heavy, so that `--help` does not wait for torch. `Recipe` in
`dense_imb.tasks.recipe` checks a configuration and builds from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Literal

SAVED = 75  # exit code of a run that was asked to stop and can be resumed; EX_TEMPFAIL, sysexits.h
AUTO: Literal["auto"] = "auto"  # value of options whose default depends on others
KINDS = ("hits", "images", "labels", "values")  # kinds of data, and the sections of a configuration


@dataclass
class HitsConfig:
    """Hits files, the degradation of their events, and what the network sees and predicts.

    Args:
        train: hits files or patterns like "runs/*.h5".
        validation: validation hits files or patterns; by default the last events of `train`.
        validation_share: fraction of the events of `train` held out for validation, if there are no
            validation files.
        validation_events: largest number of validation events; null takes all.
        signal: number of signal hits to keep, or a range [low, high]; null keeps all.
        noise: number of noise hits to add, or a range; 0 for files that contain noise.
        smear_x: standard deviation of the smearing of signal hits along x, in pixels.
        smear_y: standard deviation of the smearing of signal hits along y, in pixels.
        smear_t: standard deviation of the smearing of signal hits in time, in time steps.
        profiles: profiles of the added noise: uniform, blob, burst, hot_pixels, hot_lines, or
            sensors for tables, with options as in "blob(width=5.0, weight=0.5)".
        measured_noise: hits file of noise-only events; its noise is drawn beside the profiles.
        measured_weight: weight of `measured_noise`; each profile has weight 1 by default.
        target: hits to find: the signal hits, or the full pattern that they were drawn from.
        pixels: pixels that enter the loss: lit pixels only, or the whole frame.
        channels: input channels of the network: gapped, hit, fourier.
        threshold: r of the gapped values r + (1 - r) t / T of hits.
        output: network output for hits: a score, a value (time), or both.
        value_loss: loss of the value, if `output` is both.
        retention: fraction of the signal to keep, at which networks are compared.
        mixing: linear mixes events as frames; union thins the hits of both events and joins them,
            which keeps targets sharp; auto takes union for networks of hits, linear for frames.
        features: columns of hits that a network of hits sees beside position and time, such as the
            charge; "direction" is where the sensor looks, and the default if the sensors have one.
        n_classes: number of classes of hits, noise included; with two, every label above 0 is
            signal.
        balance_over: units of a class that count equally in the loss of a network of hits: hits,
            events, or a column that names the particle of each hit.
        value: column of hits, or t, that a network of hits predicts beside the score, with
            `value_loss`; signal hits only.
        augment: random changes of training events for networks of hits: none, mirror (x and y) or
            rotate (about the z axis, and mirror); auto rotates tables of sensors, and leaves grids.

    Example:
        >>> from dense_imb import HitsConfig
        >>> hits = HitsConfig(train="runs/*.h5", signal=30, noise=[100, 200], smear_x=1.5)
        >>> hits.noise, hits.retention  # a range of noise hits to add; keep 97 % of the signal
        ([100, 200], 0.97)
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
    target: Literal["signal", "pattern"] = "signal"
    pixels: Literal["lit", "frame"] = "lit"
    channels: list[str] = field(default_factory=lambda: ["gapped", "hit", "fourier"])
    threshold: float = 0.5
    output: Literal["score", "value", "both"] = "score"
    value_loss: str = "ACBMSELoss"
    retention: float = 0.97
    mixing: Literal["auto", "linear", "union"] = AUTO
    features: list[str] | None = None
    n_classes: int = 2
    balance_over: str = "hits"
    value: str | None = None
    augment: Literal["auto", "none", "mirror", "rotate"] = "auto"


@dataclass
class ImagesConfig:
    """Images with a mask each, 2-D or 3-D.

    Args:
        train: folder of images (png, jpg, tif, npy, nii.gz), or an HDF5 file with data sets image
            and mask.
        masks: folder of their masks, with the same file names.
        validation: validation images, in the same form as `train`; by default a fraction of
            `train`.
        validation_masks: folder of the masks of `validation`.
        validation_share: fraction of the images of `train` held out for validation, if `validation`
            is not set; the same images for every seed.
        test_share: fraction of the images of `train` kept for tests, unseen by every run; the same
            images for every seed.
        labels: mask value of each class, for example [0, 255]; by default values are classes.
        above: class 1 where a mask value is larger than this, for example 127 for anti-aliased
            masks; excludes `labels`.
        ignore_index: mask value of pixels to leave out.
        n_classes: number of classes; by default the largest label plus one.
        names: class names, background first; by default those in the HDF5 file.
        patch: size of the training crops, for example [128, 128]; by default at most 128 a side in
            2-D and 64 in 3-D.
        patches: number of crops of each image in an epoch.
        foreground: fraction of the crops that hold a drawn pixel of a class, anywhere in the crop;
            every class of the image but the first is equally likely, other crops fall anywhere.
        flips: mirror half of the crops along each axis.
        instances: instance maps for a loss with per="instance": components (connected pixels of a
            class; 0 elsewhere), nearest (the nearest component at each pixel), or stored maps, a
            folder with a map of the name of each image or a data set of the HDF5 file; by default
            components.

    Example:
        >>> from dense_imb import ImagesConfig
        >>> images = ImagesConfig(train="images", masks="masks", labels=[0, 255], patch=[128, 128])
        >>> images.labels, images.foreground  # half of the crops hold a drawn pixel of a class
        ([0, 255], 0.5)
    """

    train: str | None = None
    masks: str | None = None
    validation: str | None = None
    validation_masks: str | None = None
    validation_share: float = 0.2
    test_share: float = 0.0
    labels: list[int] | None = None
    above: int | None = None
    ignore_index: int | None = None
    n_classes: int | None = None
    names: list[str] | None = None
    patch: list[int] | None = None
    patches: int = 4
    foreground: float = 0.5
    flips: bool = True
    instances: str | None = None


@dataclass
class LabelsConfig:
    """Whole images with one label each: a CSV file with a folder of images, or CIFAR.

    Args:
        train: CSV file whose first line names the columns; or a CIFAR archive
            (cifar-10-python.tar.gz, cifar-100-python.tar.gz, or the binary ones), or the folder it
            was unpacked in.
        images: folder of the images that the CSV file names; by default its own folder.
        validation: validation CSV file; by default a fraction of each class of `train`.
        validation_images: folder of the images of `validation`; by default that of `images`.
        validation_share: fraction of each class of `train` held out for validation; by default 0.2
            of a CSV file and 0 of CIFAR, whose test images then validate, as published tables do.
        name_column: column of the file names, with or without suffix; by default the first one.
        label_column: column of the labels; by default the second one.
        group_column: images with the same value here, for example of one patient, are held out
            together.
        classes: class names in order; by default the labels are 0, 1, 2, ...
        size: height and width that images are resized to; none if all have one size.
        padding: largest shift of a training image, in pixels; by default 4 for CIFAR, otherwise an
            eighth of the shorter side.
        flips: mirror half of the training images.
        imb_ratio: CIFAR only: number of images of the largest class divided by that of the
            smallest; 100 and 0.01 mean the same, 1 is the balanced data set.
        profile: CIFAR only: class sizes in between: exponential, or step with half of the classes
            small.
        many: smallest number of training images, exclusive, of a head class.
        few: largest number of training images, exclusive, of a tail class.

    Example:
        >>> from dense_imb import LabelsConfig
        >>> labels = LabelsConfig(train="train.csv", images="photos", group_column="patient")
        >>> labels.is_table, LabelsConfig(train="cifar-10-python.tar.gz", imb_ratio=100).is_table
        (True, False)
    """

    train: str | None = None
    images: str | None = None
    validation: str | None = None
    validation_images: str | None = None
    validation_share: float | None = None
    name_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    classes: list[str] | None = None
    size: list[int] | None = None
    padding: int | None = None
    flips: Literal["none", "horizontal", "both"] = "horizontal"
    imb_ratio: float = 1.0
    profile: Literal["exponential", "step"] = "exponential"
    many: float = 100.0
    few: float = 20.0

    @property
    def is_table(self) -> bool:
        """Whether `train` is a CSV file; CIFAR is an archive, or a folder."""
        return PurePath(self.train or "").suffix not in ("", ".gz", ".tgz", ".tar")


@dataclass
class ValuesConfig:
    """Images with a map of values each, 2-D or 3-D: dose, heat maps, times, densities.

    Args:
        train: folder of images (png, jpg, tif, npy, nii.gz), or an HDF5 file with data sets image
            and target.
        targets: folder of their maps of values (png, tif, npy, nii.gz), with the same file names;
            of an HDF5 file, the name of their data set, by default target.
        cells: folder of maps of cells, parts of an image whose errors are measured and balanced
            apart; of an HDF5 file, the name of their data set. Without cells, lit and empty pixels
            are counted apart.
        cell_kind: form of the cells: labels for a map of numbers 0, 1, 2, ..., bits for a bit
            field, whose cells may overlap.
        cell_names: names of the cells, in the order of labels or bits; by default those in the
            HDF5 file.
        counted: folder of maps that are nonzero where a pixel counts, in loss, scores and read-out;
            of an HDF5 file, the name of their data set. By default all pixels count.
        validation: validation images, in the same form as `train`; by default a fraction of
            `train`.
        validation_targets: folder of the maps of `validation`, or the name of their data set; by
            default that of `targets` in an HDF5 file.
        validation_cells: folder of the cells of `validation`, or the name of their data set; by
            default that of `cells` in an HDF5 file.
        validation_counted: folder of the maps of counted pixels of `validation`, or the name of
            their data set; by default that of `counted` in an HDF5 file.
        validation_share: fraction of the images of `train` held out for validation, if `validation`
            is not set; the same images for every seed.
        test_share: fraction of the images of `train` kept for tests, unseen by every run; the same
            images for every seed.
        spatial_dims: 2 or 3; by default as files and shapes say.
        names: names of the channels of the maps; by default those in the HDF5 file.
        scale: factor by which values are divided for training, and multiplied in predictions; by
            default the largest absolute value of the training maps.
        level: value above which a pixel is lit; by default half the mean of the training
            values that are not 0.
        patch: size of the training crops, for example [128, 128]; by default at most 128 a side in
            2-D and 64 in 3-D.
        patches: number of crops of each image in an epoch.
        foreground: fraction of the crops that hold a drawn lit pixel, anywhere in the crop; with
            cells, a pixel of a drawn cell. Other crops fall anywhere.
        flips: mirror half of the crops along each axis.
        read_out: fit the read-out, a rising map from predictions to mean values, on the validation
            images at the end.

    Example:
        >>> from dense_imb import ValuesConfig
        >>> values = ValuesConfig(train="plans.h5", cells="structures", cell_kind="bits")
        >>> values.cell_kind, values.read_out
        ('bits', True)
    """

    train: str | None = None
    targets: str | None = None
    cells: str | None = None
    cell_kind: Literal["labels", "bits"] = "labels"
    cell_names: list[str] | None = None
    counted: str | None = None
    validation: str | None = None
    validation_targets: str | None = None
    validation_cells: str | None = None
    validation_counted: str | None = None
    validation_share: float = 0.2
    test_share: float = 0.0
    spatial_dims: int | None = None
    names: list[str] | None = None
    scale: float | None = None
    level: float | None = None
    patch: list[int] | None = None
    patches: int = 4
    foreground: float = 0.5
    flips: bool = True
    read_out: bool = True


@dataclass
class ModelConfig:
    """The network.

    Args:
        name: network. For hits: hits, hits:tiny, hits:base, or a network of frames. For frames,
            images and values: fast_unet, autoencoder, smp:Unet/resnet18, monai:UNet, ... For whole
            images: resnet32, timm:resnet18, ... auto takes hits, fast_unet and resnet32.
        options: options of the network, by name.

    Example:
        >>> from dense_imb import ModelConfig
        >>> model = ModelConfig("fast_unet", {"widths": [16, 32]})
        >>> model.name, ModelConfig().name
        ('fast_unet', 'auto')
    """

    name: str = AUTO
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class OptimizerConfig:
    """The optimizer.

    Args:
        name: optimizer: adamw, adam, sgd (with momentum 0.9), or muon (for matrices, with adamw
            for other weights); auto takes muon for networks of hits, else adamw.
        learning_rate: peak learning rate; by default 0.03 of muon, else 0.006.
        weight_decay: weight decay of all parameters; by default 0.3 of muon, else 0.01.
        schedule: learning-rate schedule: one-cycle, cosine or constant.
        clip: largest norm of the gradient; larger ones are scaled down.
        parts: parameters to train: all, or the head only, which is the last layer.

    Example:
        >>> from dense_imb import OptimizerConfig
        >>> OptimizerConfig("adamw", learning_rate=0.003).schedule
        'one-cycle'
    """

    name: Literal["auto", "adamw", "adam", "sgd", "muon"] = AUTO
    learning_rate: float | None = None
    weight_decay: float | None = None
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    clip: float = 1.0
    parts: Literal["all", "head"] = "all"


@dataclass
class SamplingConfig:
    """Class-balanced sampling of images, or of events of hits.

    Args:
        kind: instance shows each image once an epoch. class, sqrt and power draw images of class k,
            of n_k images, with weights n_k^-1, n_k^-0.5 and n_k^-power. progressive moves from
            instance to class. mean equals class, reverse is n_k^-2.
        power: exponent for kind power; 1/8 reproduces what the literature calls cube root.
        epochs: epochs until progressive has reached class; by default all epochs of the run.

    Example:
        >>> from dense_imb.runs import SamplingConfig
        >>> SamplingConfig("progressive", epochs=30)
        SamplingConfig(kind='progressive', power=0.125, epochs=30)
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
        kind: none, mixup (partner from the batch), balanced-mixup (partner drawn by class) or
            unimix (partner from the batch, mixed by the sizes of both classes).
        alpha: parameter of the Beta distribution of the mixing share, above 0; small values mix
            little.
        tau: unimix only: partners are drawn with weight n_k^tau.

    Example:
        >>> from dense_imb.runs import MixingConfig
        >>> MixingConfig("balanced-mixup", alpha=0.2)
        MixingConfig(kind='balanced-mixup', alpha=0.2, tau=-1.0)
    """

    kind: Literal["none", "mixup", "balanced-mixup", "unimix"] = "none"
    alpha: float = 0.2
    tau: float = -1.0


@dataclass
class UnlabelledConfig:
    """Semi-supervised training: a mean teacher labels images, or events, that have no labels.

    The teacher, a running mean of the network, labels weak views where it is confident. The network
    learns these pseudo-labels on strong views of the same images.

    Args:
        train: unlabelled files, of the same kind as the labelled ones; validation and test images
            among them are left out.
        rest: learn from the training images, or events, that `labelled_share` leaves out.
        ratio: unlabelled samples for each labelled sample in a batch.
        weight: weight of the loss of the pseudo-labels.
        ramp: fraction of the steps over which this weight grows from 0.
        threshold: smallest probability of a confident pseudo-label.
        decay: fraction of the teacher that is kept in each step.
        sampling: class-balanced sampling by pseudo-label, see `sampling.kind`.
        loss: loss of the pseudo-labels; by default the loss of the labels.
        strong: strong views: randaugment (torchvision's, 8-bit 2-D images), photometric (any
            image), hits (lit pixels lost and added; sparse frames, and the only one for hits),
            none; auto takes the first that fits.
        operations: RandAugment: number of operations in sequence.
        magnitude: RandAugment: strength of each operation, 0 to 30.

    Example:
        >>> from dense_imb.runs import UnlabelledConfig
        >>> unlabelled = UnlabelledConfig(train="unlabelled/*.h5", ratio=4)
        >>> unlabelled.threshold  # smallest probability of a pseudo-label
        0.95
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
    """A second stage, which starts from the best network of the first; labelled images only.

    Args:
        steps: number of steps; 0 trains in one stage.
        loss: loss of the second stage; by default that of the first.
        parts: parameters to train: all, or the head only, which is the last layer.
        learning_rate: peak learning rate; by default that of the first stage for the head alone,
            and a tenth of it for all parameters.
        sampling: sampling of the second stage; by class by default.
        mixing: mixing of the second stage; none by default.

    Example:
        >>> from dense_imb.runs import SecondConfig
        >>> second = SecondConfig(steps=500, parts="head")  # decoupled training
        >>> second.sampling.kind
        'class'
    """

    steps: int = 0
    loss: str | None = None
    parts: Literal["all", "head"] = "all"
    learning_rate: float | None = None
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig("class"))
    mixing: MixingConfig = field(default_factory=MixingConfig)


@dataclass
class TrainConfig:
    """A whole run. Exactly one of `hits`, `images`, `labels` and `values` names training data.

    Args:
        hits: hits of a detector; the network scores each hit.
        images: images with masks; the network segments them.
        labels: whole images with one label each; the network classifies them.
        values: images with maps of values; the network predicts them.
        sampling: class-balanced sampling of images or events.
        mixing: mixing of samples and their targets.
        labelled_share: fraction of training images or events whose labels are used (per class, for
            whole images); the same ones for every seed.
        unlabelled: semi-supervised training.
        second: second stage of training.
        model: network.
        loss: training loss: a name of `dense-imb losses` with options,
            "HardMiningLoss(gamma=0.5, balance={})", a code like hmld10000000g05a75,
            package.module:Class, or a sum, "FocalLoss + 0.5 * monai.losses:DiceLoss(..)"; by
            default the one that `dense-imb inspect` recommends for the data, and CrossEntropyLoss
            for whole images.
        allow_import: packages that losses may be imported from, beside the losses of torch.nn,
            monai, segmentation_models_pytorch and kornia. Importing runs their code, so a file
            gives no permission.
        feature_loss: loss of the features that enter the last layer, in addition to `loss`:
            "RangeLoss" with options; none by default.
        optimizer: optimizer.
        steps: number of optimizer steps.
        batch_size: events or crops in a step, over all processes together.
        seed: random seed of everything.
        validate_every: number of steps between two validations; by default a tenth of all steps.
        save_every: number of seconds between two checkpoints.
        patience: validations without a better score before training stops; never by default.
        collapse: action when the network ranks no better than chance.
        calibrate: fit slope and bias of the probabilities on the validation data at the end, with
            any loss; by default the inverse of the loss is used, and a bias fitted where needed.
        precision: number format of the network in training: "no" is float32, "auto" is bf16 if the
            device has instructions for it.
        trackers: experiment trackers to log to, if installed: tensorboard, mlflow, wandb, ...
        compile: compile the network with torch.compile.

    Example:
        >>> from dense_imb import HitsConfig, TrainConfig
        >>> config = TrainConfig(hits=HitsConfig(train="clean.h5", noise=200), steps=5000)
        >>> config.kinds, config.batch_size, config.is_semi_supervised
        (('hits',), 16, False)
    """

    hits: HitsConfig = field(default_factory=HitsConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    values: ValuesConfig = field(default_factory=ValuesConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    labelled_share: float = 1.0
    unlabelled: UnlabelledConfig = field(default_factory=UnlabelledConfig)
    second: SecondConfig = field(default_factory=SecondConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: str = AUTO
    allow_import: list[str] = field(default_factory=list)
    feature_loss: str | None = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    steps: int = 2000
    batch_size: int = 16
    seed: int = 0
    validate_every: int | None = None
    save_every: float = 60.0
    patience: int | None = None
    collapse: Literal["warn", "stop", "roll-back"] = "warn"
    calibrate: bool = False
    precision: Literal["no", "bf16", "auto"] = "no"
    trackers: list[str] = field(default_factory=list)
    compile: bool = False

    @property
    def is_semi_supervised(self) -> bool:
        """Whether the run learns from unlabelled samples."""
        return self.unlabelled.rest or bool(self.unlabelled.train)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds whose section names training data; exactly one in a valid configuration."""
        return tuple(kind for kind in KINDS if getattr(self, kind).train)


OF_HITS = ("features", "n_classes", "balance_over", "value", "augment")  # networks of hits only
OF_FRAMES = ("target", "pixels", "channels", "threshold", "output")  # networks of frames only
# by default
NETWORKS = {"hits": "hits", "images": "fast_unet", "labels": "resnet32", "values": "fast_unet"}
IN_3D = "monai:UNet"  # network to begin with in 3-D, where only MONAI has networks
_RATE, _DECAY = 6e-3, 0.01  # by default
_PLAIN = "CrossEntropyLoss"  # the default loss of older versions, and of whole images
_OF_MUON = {"rate": 0.03, "decay": 0.3}  # measured in experiments/hits


def scores_hits(model: str) -> bool:
    """Tell whether a network sees hits, not frames."""
    return model.partition(":")[0] == "hits"


def with_defaults(config: TrainConfig) -> TrainConfig:
    """Return a configuration in which defaults that depend on others are filled in.

    The loss of hits, of images and of values depends on the data; see `Recipe.resolved`.

    Example:
        >>> config = with_defaults(TrainConfig(hits=HitsConfig(train="a.h5")))
        >>> config.model.name, config.optimizer.name, config.optimizer.learning_rate
        ('hits', 'muon', 0.03)
        >>> config.optimizer.weight_decay
        0.3
    """
    kind = config.kinds[0] if len(config.kinds) == 1 else "images"  # others are refused elsewhere
    model = replace(
        config.model, name=NETWORKS[kind] if config.model.name == AUTO else config.model.name
    )
    is_of_hits = kind == "hits" and scores_hits(model.name)
    optimizer = config.optimizer
    name = optimizer.name
    if name == AUTO:
        name = "muon" if is_of_hits else "adamw"
    rate, decay = optimizer.learning_rate, optimizer.weight_decay
    rate = (_OF_MUON["rate"] if name == "muon" else _RATE) if rate is None else rate
    decay = (_OF_MUON["decay"] if name == "muon" else _DECAY) if decay is None else decay
    mixing = config.hits.mixing
    if mixing == AUTO:
        mixing = "union" if is_of_hits else "linear"
    loss = _PLAIN if config.loss == AUTO and kind == "labels" else config.loss
    return replace(
        config,
        model=model,
        loss=loss,
        optimizer=replace(optimizer, name=name, learning_rate=rate, weight_decay=decay),
        hits=replace(config.hits, mixing=mixing) if kind == "hits" else config.hits,
    )


_SECTIONS = ("data", "table", "cifar")
# names of configurations written before the sections were named by the kind of data
_RENAMED = {
    "data": "hits",
    "table": "labels",
    "cifar": "labels",
    "cifar.path": "labels.train",
    "target": "hits.target",
    "pixels": "hits.pixels",
    "retention": "hits.retention",
    "value_loss": "hits.value_loss",
    "model.channels": "hits.channels",
    "model.threshold": "hits.threshold",
    "model.output": "hits.output",
    "mixing.hits": "hits.mixing",
    "second.mixing.hits": "hits.mixing",
}


def renamed(name: str) -> str | None:
    """Return today's name of an option that was renamed; None if it was not.

    Example:
        >>> renamed("data.noise"), renamed("cifar.path"), renamed("steps")
        ('hits.noise', 'labels.train', None)
    """
    head, _, tail = name.partition(".")
    return _RENAMED.get(name) or (
        f"{_RENAMED[head]}.{tail}" if tail and head in _SECTIONS else None
    )


def upgrade(stored: Mapping[str, Any], *, is_run: bool = False) -> dict[str, Any]:
    """Return the content of a configuration file with today's names.

    Files of older versions keep their meaning: without a network they train a U-Net on hits, and
    without a loss they train with cross-entropy.

    Args:
        stored: content of the file.
        is_run: the file is that of a run, which names its network and loss unless it is older.
    Example:
        >>> upgrade({"data": {"train": "a.h5"}, "loss": "FocalLoss"})
        {'hits': {'train': 'a.h5'}, 'loss': 'FocalLoss', 'model': {'name': 'fast_unet'}}
        >>> upgrade({"data": {"train": "a.h5"}, "model": {"name": "unet"}})["loss"]
        'CrossEntropyLoss'
    """
    is_old = _is_old(stored)
    today = _with_new_names(stored) if is_old else dict(stored)
    if any(_named(today, kind, "train") for kind in KINDS if kind != "hits"):
        if _named(today, "hits", "mixing") == "linear":  # the default then
            today["hits"] = {n: v for n, v in today["hits"].items() if n != "mixing"}
    elif (is_old or is_run) and "hits" in today and isinstance(today.get("model", {}), Mapping):
        today["model"] = {"name": "fast_unet", **today.get("model", {})}
    if is_old or is_run:
        today.setdefault("loss", _PLAIN)
    return today


def _named(stored: Mapping[str, Any], section: str, name: str) -> Any:
    """Return a value of a section; None if either is missing."""
    values = stored.get(section)
    return values.get(name) if isinstance(values, Mapping) else None


def _with_new_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    is_cifar = bool((stored.get("cifar") or {}).get("path"))
    today: dict[str, Any] = {}
    for name, value in _leaves(stored):
        head = name.partition(".")[0]
        if (head == "cifar") != is_cifar and head in ("cifar", "table"):
            continue  # defaults of the other one
        new = renamed(name) or name
        place = today
        *sections, last = new.split(".")
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return today


def _is_old(stored: Mapping[str, Any]) -> bool:
    nested = [
        f"{name}.{key}"
        for name in ("model", "mixing")
        if isinstance(stored.get(name), Mapping)
        for key in stored[name]
    ]
    return any(name in _RENAMED for name in [*stored, *nested])


def _leaves(stored: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Every value with its dotted name; options of a network are one value."""
    leaves: list[tuple[str, Any]] = []
    for key, value in stored.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and key != "options":
            leaves += _leaves(value, f"{name}.")
        else:
            leaves.append((name, value))
    return leaves
