"""What the loggers of a run are sent, from records made by hand."""

import csv
import warnings
from dataclasses import replace

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_tansens import TangentSensitivityMonitor
from lightning_tansens.metrics import EmpiricalSensitivity
from lightning_tansens.record import Estimate, Missing
from lightning_tansens.show import Display
from lightning_tansens.show.keys import Keys
from lightning_tansens.show.loggers import Writer
from lightning_tansens.show.notices import Notices
from lightning_tansens.show.page import Page
from tests.boring import BoringModule, Points, loader, make_trainer, unwrapped
from tests.figures.histories import history
from tests.records import measure, record, target

NODES = {name: {"active_nodes": {"": torch.tensor([1, 2]), "layer": torch.tensor([1])}} for name in ("train", "test")}


KINDS = ("compare", "void", "begin", "layout", "text", "scalars", "histogram", "figure", "table")


class Recording(Writer):
    """Keeps what it is sent; fails at one kind of thing if asked to."""

    takes_figures = True

    def __init__(self, fails_at=None, error=None):
        super().__init__(None)
        self.sent, self.fails_at, self.error = [], fails_at, error or OSError(28, "No space left on device")

    def of(self, kind):
        return [arguments for name, arguments in self.sent if name == kind]

    def __getattribute__(self, name):
        if name not in KINDS:
            return super().__getattribute__(name)

        def call(*arguments):
            if name == self.fails_at:
                raise self.error
            self.sent.append((name, arguments))

        return call


def run(writers, display=None, epochs=4, from_step=None, **options):
    page = Page(display or Display(figure_time=1), Keys("t"), writers, [EmpiricalSensitivity()], **options)
    page.compare(["test"], ["empirical"], None, True)
    if from_step is not None:
        page.resume(from_step)
    records = history()[:epochs]
    for number, one in enumerate(records):
        page.show(one, records[: number + 1], NODES)
        page.scalars(one, {"t/test_loss/empirical": 1.0, "t/seconds": float(number)})
    page.finish(records)
    return records


def test_a_run_from_start_to_end(tmp_path):
    writer = Recording()
    records = run([writer], folder=tmp_path / "run")
    steps = [one.step for one in records]
    assert [arguments[1] for arguments in writer.of("scalars")] == steps
    assert writer.of("scalars")[2][0] == {"t/test_loss/empirical": 1.0, "t/seconds": 2.0}
    assert [name for name, _ in writer.sent][:6] == ["compare", "begin", "layout", "text", "table", "figure"]
    ((compared,),) = writer.of("begin")
    sets = [f"t/{name}_{of}" for of in ("accuracy", "loss") for name in ("test", "other")]
    assert compared == [*(f"{one}/actual" for one in sets), "t/train_loss", *(f"{one}/empirical" for one in sets)]
    ((tag, text, step),) = writer.of("text")
    assert (tag, step) == ("t/measures", 0)
    assert text.startswith("**empirical**: The empirical tangent sensitivity of a set")
    tags = {arguments[0] for arguments in writer.of("histogram")}
    assert tags == {f"t/active_nodes_histogram/{name}" for name in ("train", "test", "train/layer", "test/layer")}
    for tag in ("t/figures/test_loss", "0_t/unlabelled_sets"):
        assert [arguments[2] for arguments in writer.of("figure") if arguments[0] == tag] == steps
    *answers, scorecard = writer.of("table")
    assert [(tag, step) for tag, _, step in answers] == [("0_t/unlabelled_sets", step) for step in steps]
    assert [row["set"] for row in answers[-1][1]] == ["train (labelled)", "test", "other"]
    assert scorecard[0] == "t/scorecard"
    with (tmp_path / "run" / "t_scorecard.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(scorecard[1])


@pytest.mark.parametrize(("figure_time", "takes_figures"), [(1, True), (0, True), (1, False)])
def test_figures_that_are_missed_are_named(figure_time, takes_figures, monkeypatch):
    monkeypatch.setattr("lightning_tansens.show.page.find_spec", lambda name: None)
    writer = Recording()
    writer.takes_figures = takes_figures
    display = Display(figure_time=figure_time)
    notes = Page(display, Keys("t"), [writer]).notes
    assert [note for note in notes if "matplotlib is missing; pip install" in note] == notes
    assert len(notes) == (1 if figure_time and takes_figures else 0)
    run([writer], display)
    assert not writer.of("figure")


def test_nothing_is_missed_with_matplotlib():
    writer = Recording()
    writer.takes_figures = True
    assert Page(Display(figure_time=1), Keys("t"), [writer]).notes == []


@pytest.mark.parametrize(("follows", "count"), [(False, 1), (True, 0)])
def test_missed_figures_are_named_once_however_often_a_trainer_measures(follows, count, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr("lightning_tansens.show.page.find_spec", lambda name: None)
    monitor = TangentSensitivityMonitor(loader(Points(20)), measures=[], estimators=[], verbose=False)
    trainer = make_trainer(monitor, logger=TensorBoardLogger(tmp_path))
    if follows:
        monitor.follow_evaluations()
    with caplog.at_level("INFO"):
        for _ in range(2):
            trainer.validate(BoringModule(), loader(Points(20)), verbose=False)
    assert len([one for one in caplog.messages if "matplotlib is missing" in one]) == count
    assert len(monitor.records) == 2


def test_a_narrow_table_of_scores_has_the_most_important_columns():
    writers = [Recording(), Recording()]
    writers[1].narrow_tables = True
    run(writers)
    of_wide, of_narrow = (writer.of("table")[-1][1] for writer in writers)
    assert list(of_narrow[0]) == ["quantity", "set", "estimator", "MAE", "MAE / trivial", "coverage"]
    assert [{**row, **brief} for row, brief in zip(of_wide, of_narrow, strict=True)] == of_wide
    assert len(of_wide[0]) == 15


def test_the_table_says_what_is_known_of_each_set_and_why_to_doubt_it():
    writer = Recording()
    found = Estimate(1.0, 0.1, 0.8, 1.2, ("too few samples",), "worse", "the population may differ from the reference's")
    one = record(accuracy=0.5, targets=[target(loss=1.1, losses={"estimate": found})])
    Page(Display(figure_time=0), Keys(), [writer]).show(one, [one])
    ((tag, rows, step),) = writer.of("table")
    assert (tag, step) == ("0_tansens/unlabelled_sets", one.step)
    assert rows == [
        {"set": "train (labelled)", "accuracy": "0.50", "loss": "1.00", "verdict": "", "remarks": ""},
        {
            "set": "test",
            "accuracy": "",
            "loss": "1.00 [0.800, 1.20], true 1.10",
            "verdict": "worse?",
            "remarks": "too few samples; assumes that the population may differ from the reference's",
        },
    ]


def test_what_is_switched_off_is_not_sent():
    writer = Recording()
    run([writer], Display(layout=False, texts=False, histograms=False, figure_time=0))
    assert {name for name, _ in writer.sent} == {"begin", "scalars"}


@pytest.mark.parametrize(("share", "figures"), [(0, 0), (1e-9, 2), (1, 4)])
def test_figures_take_a_share_of_the_time(share, figures):
    writer = Recording()
    run([writer], Display(figure_time=share))
    drawn = [tag for tag, *_ in writer.of("figure")]
    assert drawn.count("t/figures/test_loss") == figures
    assert drawn.count("0_t/unlabelled_sets") == (4 if share else 0)  # it answers at every measurement


def test_a_resumed_run_says_where_it_goes_on():
    writer = Recording()
    run([writer], from_step=7, epochs=1)
    assert writer.sent[:3] == [writer.sent[0], ("void", (7,)), ("begin", writer.of("begin")[0])]


@pytest.mark.parametrize("what", KINDS)
def test_a_full_disk_switches_a_writer_off_with_one_warning(what):
    broken, other = Recording(what), Recording()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        records = run([broken, other], from_step=7, epochs=2)
    said = [str(warning.message) for warning in caught]
    (message,) = said
    assert message.startswith("TangentSensitivityMonitor: Recording failed and is switched off; the run goes on: [Errno 28]")
    assert [arguments[1] for arguments in other.of("scalars")] == [one.step for one in records]
    before = [name for name, _ in other.sent].index(what)
    assert broken.sent == other.sent[:before]  # nothing follows what failed


def test_a_full_disk_raises_where_failures_do():
    with pytest.raises(OSError, match="No space left on device"):
        run([Recording("figure")], strict=True)


def test_other_failures_are_not_hidden():
    with pytest.raises(ValueError, match="a mistake"):
        run([Recording("figure", ValueError("a mistake"))])


def test_charts_and_figures_leave_out_what_loggers_are_not_sent(monkeypatch):
    drawn = []
    monkeypatch.setattr("lightning_tansens.show.page.draw_figures", lambda records, *others: drawn.append(records) or [])
    writer, short = Recording(), target(losses={"trivial": 1.0})
    run([writer], epochs=2, brief=lambda one: replace(one, targets={"test": short}))
    assert [one.targets for records in drawn for one in records] == 3 * [{"test": short}]
    ((layout,),) = writer.of("layout")
    assert list(layout["t: estimated against actual"]) == ["loss of test"]
    assert len(writer.of("table")[0][1]) == 3  # which says what is known of both sets


def test_without_writers_nothing_is_drawn(monkeypatch):
    monkeypatch.setattr("lightning_tansens.show.page.draw_figures", lambda *arguments: pytest.fail("drawn"))
    run([])


# ------------------------------------------------------------------------------------------------ notices


def test_what_is_missing_is_said_once_for_each_reason():
    reason = "1 of 1000 outputs is not finite"
    missing = Missing(reason)
    of_test = {"cot": missing, "mano": missing, "empirical": Missing("zero")}
    one = record(targets=[target(missing=of_test), target("b", missing={"cot": missing})])
    notices = Notices()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        notices.say(one)
        notices.say(one)
    assert [str(warning.message) for warning in caught] == [
        f"TangentSensitivityMonitor: cot, mano are left out of the log: {reason} (said once)",
        "TangentSensitivityMonitor: empirical is left out of the log: zero (said once)",
    ]


def test_what_comes_later_in_the_run_is_missed_from_the_fourth_measurement_on(caplog):
    early = "the line needs 2 networks"
    one = record(targets=[target(missing={"line": Missing(early, too_early=True), "mano": Missing("expected scores")})])
    notices = Notices()
    said = []
    for _ in range(5):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            notices.say(one)
        said.append([str(warning.message).removeprefix("TangentSensitivityMonitor: ") for warning in caught])
    first = ["mano is left out of the log: expected scores (said once)"]
    assert said == [first, [], [], [f"line is left out of the log: {early} (said once)"], []]


def test_how_precise_the_values_are_is_said_at_the_second_measurement(caplog):
    found, worse = measure("empirical", 2.0, stderr=0.5), measure("empirical", 2.0, stderr=1.0)
    one = record(measures=found, samples=100, targets=[target(measures=worse, samples=50)], seconds={"total": 0.25})
    notices = Notices()
    with caplog.at_level("INFO"):
        for said in (0, 1, 1):
            notices.say(one)
            assert len(caplog.messages) == said
    assert caplog.messages == [
        "TangentSensitivityMonitor: the error of tangent sensitivity is 50.0% or less (50\n"
        "  samples of test); num_samples=200 would halve it"
    ]
    caplog.clear()
    with caplog.at_level("INFO"):
        slow, notices = replace(one, seconds={"total": 2.0}), Notices()
        for _ in range(2):
            notices.say(slow)
    assert unwrapped(caplog.messages[0]).endswith("would halve it, at about 8 s a measurement instead of 2 s")
