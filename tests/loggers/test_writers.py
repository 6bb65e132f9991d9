"""What each logger is sent, read back from where it keeps it."""

import json
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CometLogger, CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout as LayoutOfCharts
from tensorboard.plugins.hparams import metadata

from lightning_tansens.monitor.trainer_loggers import writers
from lightning_tansens.show import Display
from lightning_tansens.show.loggers import Writer, writer_of
from lightning_tansens.show.loggers.base import markdown_table
from lightning_tansens.show.loggers.folder import FOLDER, FolderWriter
from lightning_tansens.show.loggers.tensorboard import EventFile
from tests.boring import BoringData, BoringModule, fit, make_monitor, make_trainer, untimed

ROWS = [{"name": "a", "MAE": 0.12345, "coverage": None}, {"name": "b", "MAE": 2, "coverage": 0.5}]
TABLE = "| name | MAE | coverage |\n|---|---|---|\n| a | 0.1235 |  |\n| b | 2 | 0.5 |"


def drawn():
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    return figure


def read(folder):
    events = EventAccumulator(str(folder), {"tensors": 0, "scalars": 0, "histograms": 0, "images": 0})
    events.Reload()
    return events


@pytest.fixture
def tensorboard(tmp_path):
    logger = TensorBoardLogger(tmp_path, "", "")
    return logger, writer_of(logger)


def test_tensorboard_takes_everything(tensorboard):
    logger, writer = tensorboard
    writer.histogram("h", torch.arange(10.0), 3)
    writer.figure("f", drawn(), 3)
    writer.text("t", "some **text**", 3)
    writer.table("r", ROWS, 3)
    writer.scalars({"s": 0.5, "s_too": 1.5}, 3)
    events = read(logger.log_dir)
    assert [(row.step, row.histogram_value.num) for row in events.Histograms("h")] == [(3, 10)]
    assert [row.step for row in events.Images("f")] == [3]
    assert events.Tensors("t/text_summary")[0].tensor_proto.string_val == [b"some **text**"]
    assert events.Tensors("r/text_summary")[0].tensor_proto.string_val == [TABLE.encode()]
    assert [[(row.step, row.value) for row in events.Scalars(tag)] for tag in ("s", "s_too")] == [[(3, 0.5)], [(3, 1.5)]]


def test_tensorboards_tables_are_narrow(tensorboard):
    assert tensorboard[1].narrow_tables
    assert not Writer(None).narrow_tables


def test_tensorboards_pictures_keep_their_lines_when_pixels_are_left_out(tensorboard):
    """Every second pixel of them is the mean of four."""
    logger, writer = tensorboard
    figure = Figure((0.8, 0.4), dpi=100)
    figure.add_axes((0, 0, 1, 1)).plot([0, 1], [0, 1])
    writer.figure("f", figure, 3)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    exact = np.asarray(canvas.buffer_rgba())[..., :3].astype(float)
    (event,) = read(logger.log_dir).Images("f")
    with Image.open(BytesIO(event.encoded_image_string)) as image:
        kept = np.asarray(image.convert("RGB"))
    means = exact.reshape(20, 2, 40, 2, 3).mean((1, 3))
    assert kept.shape == exact.shape
    np.testing.assert_allclose(kept[::2, ::2], means, atol=0.51)


def test_tensorboards_layout_is_read_back(tensorboard):
    logger, writer = tensorboard
    writer.layout({"group": {"chart": ["Multiline", ["^a$", "^b$"]], "band": ["Margin", ["k", "k_low", "k_high"]]}})
    (event,) = read(logger.log_dir).Tensors("custom_scalars__config__")
    (category,) = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0]).category
    lines, band = category.chart
    assert (category.title, lines.title, list(lines.multiline.tag)) == ("group", "chart", ["^a$", "^b$"])
    (series,) = band.margin.series
    assert (series.value, series.lower, series.upper) == ("k", "k_low", "k_high")


def test_tensorboard_shows_bands_in_their_order(tensorboard):
    """Its tab turns the charts of a category of bands around."""
    logger, writer = tensorboard
    writer.layout({"bands": {name: ["Margin", [name, "low", "high"]] for name in "ab"}, "lines": dict.fromkeys("cd", LINE)})
    (event,) = read(logger.log_dir).Tensors("custom_scalars__config__")
    categories = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0]).category
    assert [[chart.title for chart in category.chart] for category in categories] == [["b", "a"], ["c", "d"]]


LINE = ["Multiline", ["^a$"]]


class WithHyperparameters(BoringModule):
    def __init__(self, lr=0.1, widths=(3, 4), network=None):
        super().__init__(lr=lr)
        self.save_hyperparameters(ignore="network")


def compared(folder):
    """The metrics and the hyperparameters in the HPARAMS tab of TensorBoard, and those of the session."""
    kept = read(folder).PluginTagToContent("hparams")
    experiment = metadata.parse_experiment_plugin_data(kept[metadata.EXPERIMENT_TAG])
    session = metadata.parse_session_start_info_plugin_data(kept[metadata.SESSION_START_INFO_TAG])
    hyperparameters = {info.name for info in experiment.hparam_infos}
    assert set(session.hparams) == hyperparameters
    return [info.name.tag for info in experiment.metric_infos], session.hparams


@pytest.mark.parametrize("module", [WithHyperparameters, BoringModule])
def test_tensorboards_runs_are_compared_by_the_values_that_there_are(module, tmp_path):
    own = module is WithHyperparameters
    fit(make_monitor(compare_with_labels=own), module=module(), logger=TensorBoardLogger(tmp_path, "", ""), max_epochs=1)
    metrics, hyperparameters = compared(tmp_path)
    values = [
        f"tansens/test_{quantity}/{name}"
        for quantity in ("loss", "accuracy")
        for name in (*(["actual"] if own else []), "empirical", "layer_norm", "active_nodes")
    ] + ["tansens/train_loss", "tansens/train_accuracy"]
    assert set(metrics) == {*(["hp_metric"] if own else []), *values}
    assert set(values) <= set(read(tmp_path).Tags()["scalars"])
    assert set(hyperparameters) == ({"lr", "widths"} if own else {"run"})  # without one TensorBoard's tab is empty
    assert not own or hyperparameters["lr"].number_value == 0.1


@pytest.mark.parametrize("hparams", [{"lr": 0.5}, None])
def test_what_is_compared_comes_before_lightnings_own_list(hparams, tensorboard):
    logger, writer = tensorboard
    logger.experiment.flush()  # Lightning's file is the older one
    writer.compare(["a", "b"], hparams)
    writer_of(logger).compare(["c"], hparams)  # a second monitor
    if hparams:
        logger.log_hyperparams(hparams)
    writer.begin()
    logger.experiment.flush()
    metrics, hyperparameters = compared(logger.log_dir)
    assert metrics == [*(["hp_metric"] if hparams else []), "a", "b", "c"]
    assert set(hyperparameters) == ({"lr"} if hparams else {"run"})


@pytest.mark.parametrize("hparams", [{"lr": 0.5}, None])
def test_the_first_measurement_says_what_there_is_to_compare(hparams, tensorboard):
    logger, writer = tensorboard
    other = writer_of(logger)
    writer.compare(["a", "b"], hparams)
    other.compare(["c", "d"], hparams)
    if hparams:
        logger.log_hyperparams(hparams)
    writer.begin(["b", "reference"])
    other.begin(["d"])
    logger.experiment.flush()
    metrics, hyperparameters = compared(logger.log_dir)
    assert metrics == [*(["hp_metric"] if hparams else []), "b", "reference", "d"]
    assert set(hyperparameters) == ({"lr"} if hparams else {"run"})


@pytest.mark.parametrize("by_user", [True, False])
def test_metrics_of_the_users_own_stay_in_the_list(by_user, tmp_path):
    """As Lightning documents it: ``default_hp_metric=False``, and the list is logged when the training starts."""
    logger = TensorBoardLogger(tmp_path, "", "", default_hp_metric=False)
    writer = writer_of(logger)
    writer.compare(["a", "b"], {"lr": 0.5})
    logger.log_hyperparams({"lr": 0.5})
    if by_user:
        logger.log_hyperparams({"lr": 0.5}, {"hp/acc": 0})
    writer.begin()
    logger.experiment.flush()
    metrics, hyperparameters = compared(logger.log_dir)
    assert metrics == [*(["hp/acc"] if by_user else []), "a", "b"]
    assert hyperparameters["lr"].number_value == 0.5


def test_layouts_of_the_user_and_of_two_monitors_stand_together(tensorboard):
    logger, writer = tensorboard
    logger.experiment.add_custom_scalars({"users": {"loss": ["Multiline", ["loss"]]}})
    writer.layout({"a": {"first": ["Multiline", ["t/a"]]}})
    writer_of(logger).layout({"b": {"second": ["Multiline", ["t/b"]]}})
    writer_of(logger).layout({"a": {"again": ["Multiline", ["t/a"]]}})
    last = read(logger.log_dir).Tensors("custom_scalars__config__")[-1]
    shown = LayoutOfCharts.FromString(last.tensor_proto.string_val[0])
    titles = {category.title: [chart.title for chart in category.chart] for category in shown.category}
    assert titles == {"users": ["loss"], "a": ["again"], "b": ["second"]}


def test_a_resumed_run_has_no_step_twice(tensorboard, tmp_path):
    """The first process is killed after it wrote a measurement that no checkpoint has."""
    _, killed = tensorboard
    killed.begin()
    for step in (10, 20, 30):
        send_all(killed, step)
    resumed_logger = TensorBoardLogger(tmp_path, "", "")
    resumed_logger.log_metrics({"users": 1.0}, 25)
    resumed = writer_of(resumed_logger)
    resumed.void(20)
    writer_of(resumed_logger).void(20)  # a second monitor's, before anything is sent
    for step in (20, 30):
        send_all(resumed, step)
    resumed_logger.experiment.flush()
    events = read(tmp_path)
    tags = events.Tags()
    found = {tag: [row.step for row in events.Scalars(tag)] for tag in tags["scalars"]}
    assert found.pop("users") == [25]  # Lightning's values stay
    found |= {tag: [row.step for row in events.Histograms(tag)] for tag in tags["histograms"]}
    found |= {tag: [row.step for row in events.Images(tag)] for tag in tags["images"]}
    found |= {tag: [row.step for row in events.Tensors(tag)] for tag in tags["tensors"]}
    assert found == {tag: [10, 20, 30] for tag in ("s", "h", "f", "t/text_summary")}


def send_all(writer, step):
    writer.scalars({"s": 1.0}, step)
    writer.histogram("h", torch.arange(10.0), step)
    writer.figure("f", drawn(), step)
    writer.text("t", "text", step)


def test_a_torn_record_ends_a_file(tensorboard, tmp_path):
    """What a process had not finished writing when it was killed."""
    _, writer = tensorboard
    writer.scalars({"s": 1.0}, 10)
    writer.scalars({"s": 2.0}, 20)
    (path,) = tmp_path.glob("*.tansens")
    path.write_bytes(path.read_bytes()[:-3])
    writer.void(15)
    writer.scalars({"s": 3.0}, 20)
    assert [(row.step, row.value) for row in read(tmp_path).Scalars("s")] == [(10, 1.0), (20, 3.0)]


def test_lightnings_writer_outlives_ours(tensorboard, monkeypatch):
    """A disk that is full for a figure has room for the training's scalars again."""
    logger, writer = tensorboard
    with monkeypatch.context() as patch:
        patch.setattr(EventFile, "_append", no_space)
        with pytest.raises(OSError, match="No space left"):
            writer.figure("f", drawn(), 3)
    logger.log_metrics({"loss": 1.0}, 4)
    logger.experiment.flush()
    assert [row.value for row in read(logger.log_dir).Scalars("loss")] == [1.0]


def no_space(*arguments, **options):
    raise OSError(28, "No space left on device")


def test_a_remote_folder_gets_lightnings_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(TensorBoardLogger, "log_dir", "memory://somewhere")
    logger = TensorBoardLogger(tmp_path)
    logger._experiment = sent = Sent()
    writer = writer_of(logger)
    writer.void(3)
    writer.begin()
    writer.scalars({"s": 1.0}, 3)
    writer.compare(["a"], None)
    assert sent.calls == [("add_scalar", ("s", 1.0, 3)), "summary", "summary"]


class Sent:
    """Keeps what a writer of TensorBoard is asked for."""

    def __init__(self):
        self.calls = []

    def add_scalar(self, *arguments):
        self.calls.append(("add_scalar", arguments))

    def _get_file_writer(self):
        return self

    def add_summary(self, summary):
        self.calls.append("summary")


def test_csv_runs_keep_the_latest_figures_and_texts(tmp_path):
    logger = CSVLogger(tmp_path, "", "")
    writer = writer_of(logger)
    for step in (1, 2):
        writer.figure("tansens/figures/x", drawn(), step)
        writer.table("tansens/scores", ROWS[:step], step)
    writer.text("tansens/measures", "text", 1)
    folder = tmp_path / FOLDER
    assert sorted(path.name for path in folder.iterdir()) == [
        "tansens_figures_x.png",
        "tansens_measures.md",
        "tansens_scores.md",
    ]
    assert (folder / "tansens_scores.md").read_text() == TABLE + "\n"
    assert (folder / "tansens_figures_x.png").read_bytes()[1:4] == b"PNG"


class Unknown(DummyLogger):
    """Some other kind of logger."""

    save_dir = None

    def __init__(self):
        super().__init__()
        self.logged = []

    def log_metrics(self, metrics, step=None):
        self.logged.append((metrics, step))


def test_scalars_reach_any_logger_in_one_call(tmp_path):
    logger = Unknown()
    writer_of(logger).scalars({"a": 1.0, "b": 2.0}, 3)
    assert logger.logged == [({"a": 1.0, "b": 2.0}, 3)]
    csv_logger = CSVLogger(tmp_path, "", "")
    writer_of(csv_logger).scalars({"a": 1.0, "b": 2.0}, 3)
    csv_logger.save()
    assert (tmp_path / "metrics.csv").read_text().split() == ["a,b,step", "1.0,2.0,3"]
    FolderWriter(tmp_path).scalars({"a": 1.0}, 3)  # another logger has them


def test_where_no_logger_takes_figures_they_are_kept_in_the_run(tmp_path):
    trainer = make_trainer(logger=Unknown(), default_root_dir=tmp_path)
    other, folder = writers(trainer)
    assert type(other) is Writer
    folder.figure("tansens/figures/x", drawn(), 1)
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["tansens_figures_x.png"]
    assert writers(make_trainer(logger=False)) == []
    assert len(writers(make_trainer(logger=[Unknown(), TensorBoardLogger(tmp_path)]))) == 2
    assert writers(make_trainer(logger=True, fast_dev_run=True)) == []


def test_an_unknown_logger_is_spared_everything():
    writer = writer_of(Unknown())
    assert not writer.takes_figures
    writer.histogram("h", torch.arange(3.0), 0)
    writer.figure("f", drawn(), 0)
    writer.text("t", "text", 0)
    writer.table("r", ROWS, 0)
    writer.void(3)
    writer.begin()
    writer.layout({})
    writer.compare(["k"], None)


def test_a_users_logger_can_be_registered():
    class Mine(Unknown):
        pass

    class MyWriter(Writer):
        takes_figures = True

    writer_of.register(Mine, MyWriter)
    assert isinstance(writer_of(Mine()), MyWriter)


def test_a_table_in_markdown():
    assert markdown_table(ROWS) == TABLE
    long = markdown_table([{"why": "the loss may be off by more than a factor of 1.6 | too few samples"}])
    assert long.split("\n")[2] == r"| the loss may be off<br>by more than a factor<br>of 1.6 \| too few<br>samples |"
    assert markdown_table([]) == ""


# ------------------------------------------------------------------------------------------ within a fit


def test_a_fit_fills_the_page(tmp_path):
    monitor = make_monitor(compare_with_labels=True, display=Display(figure_time=1))
    fit(monitor, data=BoringData(), logger=TensorBoardLogger(tmp_path, "", ""), max_epochs=3)
    events = read(tmp_path)
    tags = events.Tags()
    steps = [row["step"] for row in monitor.history]
    figures = {f"tansens/figures/{name}" for name in ("test_loss", "test_accuracy", "active_nodes")}
    assert set(tags["images"]) == {"0_tansens/unlabelled_sets", *figures}
    for tag in ("0_tansens/unlabelled_sets", "tansens/figures/test_loss"):
        assert [image.step for image in events.Images(tag)] == steps
    answers = events.Tensors("0_tansens/unlabelled_sets/text_summary")
    assert [text.step for text in answers] == steps
    assert answers[0].tensor_proto.string_val[0].startswith(b"| set | accuracy | loss | ")
    assert len(events.Tensors("custom_scalars__config__")) == 1
    text = events.Tensors("tansens/measures/text_summary")
    assert len(text) == 1
    for name in ("empirical", "layer_norm", "active_nodes"):
        assert f"**{name}**: The ".encode() in text[0].tensor_proto.string_val[0]
    assert set(tags["histograms"]) == {f"tansens/active_nodes_histogram/{name}" for name in ("train", "test")}
    assert not [tag for tag in tags["scalars"] if tag.endswith(("_low", "_high", "_reliable"))]


def test_figures_can_be_left_out_or_take_a_share_of_the_time(tmp_path):
    counts = {}
    for share in (0, 1e-9, 1):
        folder = tmp_path / str(share)
        fit(make_monitor(display=Display(figure_time=share)), logger=TensorBoardLogger(folder, "", ""), max_epochs=3)
        events = read(folder)
        counts[share] = len(events.Images("tansens/figures/test_loss")) if events.Tags()["images"] else 0
    assert counts == {0: 0, 1e-9: 2, 1: 3}  # the first and the last measurement


def test_what_is_switched_off_is_not_sent(tmp_path):
    display = Display(log="all", layout=False, texts=False, histograms=False, figure_time=0)
    monitor = make_monitor(display=display)
    fit(monitor, logger=TensorBoardLogger(tmp_path, "", ""), max_epochs=1)
    tags = read(tmp_path).Tags()
    assert not tags["histograms"]
    assert not tags["images"]
    assert not tags["tensors"]
    assert {tag for tag in tags["scalars"] if tag.startswith("tansens/")} == {
        key for key in monitor.history[0] if "/" in key
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"figure_time": 2}, "figure_time: expected a share between 0 and 1, but got 2"),
        ({"num_images": -1}, "num_images: expected an integer of at least 0, but got -1"),
    ],
)
def test_impossible_displays_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Display(**options)


# ------------------------------------------------------------------------------ services, offline


def test_wandb(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    sent = []
    log = logger.experiment.log
    monkeypatch.setattr(logger.experiment, "log", lambda row, *args, **kwargs: (sent.append(row), log(row, *args, **kwargs)))
    writer = writer_of(logger)
    writer.histogram("h", torch.arange(10.0), 3)
    writer.figure("f", drawn(), 3)
    writer.text("t", "text", 3)
    writer.table("r", ROWS, 3)
    logger.experiment.finish()
    kinds = {tag: value for row in sent for tag, value in row.items() if tag != "trainer/global_step"}
    assert isinstance(kinds["h"], wandb.Histogram)
    assert sum(kinds["h"].histogram) == 10
    assert isinstance(kinds["f"][0], wandb.Image)
    assert kinds["t"].data == [["text"]]
    assert kinds["r"].columns == ["name", "MAE", "coverage"]
    assert all(row["trainer/global_step"] == 3 for row in sent)


def mlflow_logger(folder, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return MLFlowLogger("experiment", tracking_uri=f"file:{folder}")


def test_mlflow(tmp_path, monkeypatch):
    logger = mlflow_logger(tmp_path, monkeypatch)
    writer = writer_of(logger)
    writer.histogram("h", torch.arange(10.0), 3)
    writer.figure("f", drawn(), 3)
    writer.text("t", "text", 3)
    writer.table("r", ROWS, 3)
    (artifacts,) = tmp_path.glob("*/*/artifacts")
    assert sum(json.loads((artifacts / "h" / "000000003.json").read_text())["counts"]) == 10
    assert (artifacts / "f" / "000000003.png").read_bytes()[1:4] == b"PNG"
    assert (artifacts / "t.md").read_text() == "text"
    assert (artifacts / "r.md").read_text() == TABLE


def test_mlflow_gets_the_same_scalars(tmp_path, monkeypatch):
    logger = mlflow_logger(tmp_path, monkeypatch)
    monitor = make_monitor(on_failure="raise")
    fit(monitor, logger=logger, max_epochs=2)
    client, run = logger.experiment, logger.run_id
    for key in [key for key in untimed(monitor.history)[0] if "/" in key]:
        values = [metric.value for metric in client.get_metric_history(run, key)]
        assert values == pytest.approx([row[key] for row in monitor.history])


def test_wandb_gets_the_same_scalars(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    sent = []
    monkeypatch.setattr(logger.experiment, "log", lambda row, *args, **kwargs: sent.append(row))
    monitor = make_monitor(on_failure="raise")
    fit(monitor, logger=logger, max_epochs=2)
    logger.experiment.finish()
    key = "tansens/test_loss/empirical"
    assert [row[key] for row in sent if key in row] == pytest.approx([row[key] for row in monitor.history])
    assert any("tansens/figures/test_loss" in row for row in sent)


def test_comet(tmp_path):
    comet_ml = pytest.importorskip("comet_ml")
    logger = CometLogger(online=False)  # Lightning's own offline experiment is disabled
    logger._experiment = comet_ml.OfflineExperiment(offline_directory=str(tmp_path), project_name="p", workspace="w")
    writer = writer_of(logger)
    writer.histogram("h", torch.arange(10.0), 3)
    writer.figure("f", drawn(), 3)
    writer.text("t", "text", 3)
    writer.table("r/s", ROWS, 3)
    logger.log_metrics({"m": 1.5}, 3)
    logger.experiment.end()
    (kept,) = tmp_path.glob("*.zip")
    with zipfile.ZipFile(kept) as archive:
        said = archive.read("messages.json").decode()
    for name in ('"histogram3d"', '"figName":"f"', '"text-sample"', '"fileName":"r_s.csv"'):
        assert name in said


def test_names_of_files_suit_every_file_system(tmp_path):
    writer = FolderWriter(tmp_path)
    writer.text('t/blur: "2"?|' + 300 * "x", "text", 0)
    (made,) = tmp_path.iterdir()
    assert len(made.name) < 160
    assert not set(made.name) & set('<>:"/|?*')
