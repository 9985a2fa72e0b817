"""A trained network's smaller variants: what they are made of, what they answer, their table, and the choice."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from contract.gates import Gate
from contract.service import MODEL_FILE
from contract.training import Optimise
from training import job, optimise, tasks
from training.data import load
from training.models.digits import model as digits
from training.onnxfile import answer, open_model
from training.optimise import CPU, Variant, choose, variants
from training.split import divide
from training.steps import Context

NAMES = ["float", "float-int8", "student", "student-int8", "pruned", "pruned-int8"]
SMALLER = {"student": {"channels": 4, "width": 16}, "prune": 0.5, "epochs": 6, "max_drop": 0.05}


@pytest.fixture(scope="module")
def made(outputs_document, manifest, tmp_path_factory):
    """What the step makes of a small network for digits that has seen 900 of them."""
    training = manifest.training.model_copy(update={"epochs": 8, "network": {"channels": 8, "width": 32}})
    changes = {"training": training, "optimise": Optimise.model_validate(SMALLER)}
    manifest = manifest.model_copy(update=changes)
    work, said = tmp_path_factory.mktemp("optimise"), []
    context = Context(manifest, outputs_document, work, said.append)
    for part, table in divide(digits.raw_data().head(1200), manifest.split).items():
        (work / "split" / part).mkdir(parents=True)
        table.write_parquet(work / "split" / part / "part-0.parquet")
    train, held_out = (load(work / "split" / part, manifest) for part in ("train", "validation"))
    network = job.build(manifest, training, CPU.device)
    job.train(manifest, network, train, None, CPU)
    (work / "train" / "model").mkdir(parents=True)
    torch.save(network.state_dict(), work / "train" / "model" / job.WEIGHTS_FILE)
    (work / "optimise").mkdir()
    return SimpleNamespace(
        line=optimise.step(context),
        said=said,
        folder=work / "optimise",
        table={variant.name: variant for variant in variants(work / "optimise")},
        network=network.eval(),
        manifest=manifest,
        train=train,
        held_out=held_out,
    )


def graph(made, name):
    return onnx.load(made.folder / name / MODEL_FILE).graph


def weights(made, name):
    return sum(int(np.prod(each.dims)) for each in graph(made, name).initializer)


def test_all_variants_are_made_and_told_of(made):
    assert list(made.table) == NAMES
    assert [line for line in made.said if line.startswith("variant")] == [
        "variant float",
        "variant student",
        "variant pruned",
    ]


def test_the_first_is_the_network_itself(made):
    with torch.inference_mode():
        scores = made.network(torch.from_numpy(made.held_out.features))
    got = answer(open_model(made.folder / "float"), made.held_out.features)
    assert np.allclose(got["probabilities"], scores.softmax(1), atol=1e-5)


def test_student_and_pruned_have_fewer_weights_and_are_trained(made):
    assert weights(made, "student") < 0.4 * weights(made, "float")
    assert weights(made, "pruned") < 0.5 * weights(made, "float")  # half of the channels: a quarter between two layers
    for name in ("student", "pruned"):
        assert made.table[name].quality > 0.8


def test_int8_holds_eight_bit_weights_and_is_smaller(made):
    for name in ("float", "student", "pruned"):
        kinds = {each.data_type for each in graph(made, f"{name}-int8").initializer if len(each.dims) > 1}
        assert kinds == {onnx.TensorProto.INT8}
        small, large = made.table[f"{name}-int8"], made.table[name]
        assert abs(small.quality - large.quality) < 0.03
    assert made.table["float-int8"].size_mb < 0.6 * made.table["float"].size_mb


@pytest.mark.parametrize("name", ["float", "student", "pruned"])
def test_int8_clips_where_it_rounds(made, name):
    assert "Relu" in {node.op_type for node in graph(made, name).node}
    assert "Relu" not in {node.op_type for node in graph(made, f"{name}-int8").node}


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_rows_is_answered_each_on_its_own(made, name):
    session, rows = open_model(made.folder / name), made.held_out.features
    (rows_of_input, columns) = session.get_inputs()[0].shape
    assert (isinstance(rows_of_input, str), columns) == (True, 64)
    every = answer(session, rows)
    for count in (1, 2, 33):
        some = answer(session, rows[:count])
        assert np.array_equal(some["label"], every["label"][:count])
        assert np.allclose(some["probabilities"], every["probabilities"][:count], atol=1e-5)
    assert every["probabilities"].sum(1) == pytest.approx(np.ones(len(rows)), abs=1e-5)


def test_the_table_has_quality_size_latency_and_throughput(made):
    for name, variant in made.table.items():
        labels = answer(open_model(made.folder / name), made.held_out.features)["label"]
        assert variant.quality == (labels == made.held_out.targets).mean()
        assert variant.size_mb == (made.folder / name / MODEL_FILE).stat().st_size / 2**20
        assert min(variant.latency_ms, variant.throughput) > 0
    document = json.loads((made.folder / optimise.TABLE_FILE).read_text())
    assert document[0].keys() == {*Variant.__dataclass_fields__}


def test_the_chosen_one_is_the_model(made):
    (chosen,) = (variant for variant in made.table.values() if variant.chosen)
    assert (made.folder / "model" / MODEL_FILE).read_bytes() == (made.folder / chosen.name / MODEL_FILE).read_bytes()
    assert made.line.startswith(f"{chosen.name} is chosen among 6: ")
    good = [each for each in made.table.values() if not each.refused]
    assert chosen.size_mb == min(each.size_mb for each in good)


def variant(name, quality=0.99, size_mb=1.0, latency_ms=1.0, throughput=1000.0):
    return Variant(name, quality, latency_ms, throughput, size_mb)


def chosen(manifest, *measured):
    judged = choose(list(measured), manifest)
    return next(each.name for each in judged if each.chosen), {each.name: each.refused for each in judged}


@pytest.fixture
def strict(manifest):
    gates = {"accuracy": Gate(min=0.9), "latency_ms": Gate(max=2), "size_mb": Gate(max=3), "throughput": Gate(min=10)}
    return manifest.model_copy(update={"gates": gates, "optimise": Optimise(max_drop=0.01)})


def test_the_smallest_that_is_good_enough_is_chosen(strict):
    name, refused = chosen(strict, variant("float"), variant("a", 0.981, 0.5), variant("b", 0.9799, 0.2))
    assert (name, refused["a"], refused["b"]) == ("a", "", "accuracy 0.9799 is less than 0.9800")


def test_a_variant_that_breaks_a_gate_is_not_chosen(strict):
    name, refused = chosen(
        strict,
        variant("float", size_mb=5),
        variant("a", 0.999, 2),
        variant("b", size_mb=1, latency_ms=2.5),
        variant("c", size_mb=1, throughput=9),
    )
    assert name == "a"
    assert refused == {
        "float": "size_mb 5 is not at most 3",
        "a": "",
        "b": "latency_ms 2.5 is not at most 2",
        "c": "throughput 9 is not at least 10",
    }


def test_the_network_itself_is_chosen_where_no_variant_is_good_enough(strict):
    name, refused = chosen(strict, variant("float", size_mb=5), variant("a", 0.5), variant("b", float("nan")))
    assert name == "float"
    assert all(refused.values())


def test_without_settings_for_them_there_is_the_network_alone(made, tmp_path):
    alone = made.manifest.model_copy(update={"optimise": Optimise(int8=False)})
    trained = made.folder.parent / "train" / "model"
    assert optimise.make(alone, trained, tmp_path, made.train, made.held_out, print) == ["float"]


def test_the_loss_of_a_student_is_half_its_labels_and_half_its_teacher():
    """By the article: cross-entropies of the labels, and of the teacher's probabilities at a temperature."""
    torch.manual_seed(0)
    teacher, outputs, targets = torch.randn(6, 3), torch.randn(4, 3), torch.tensor([0, 2, 1, 1, 0, 2])
    rows = torch.tensor([5, 0, 3, 1])
    loss = tasks.distilled("classification", tasks.loss("classification", targets, 1.0), teacher, 1.0)
    soft, told = (teacher[rows] / 2).softmax(1), (outputs / 2).log_softmax(1)
    expected = (functional.cross_entropy(outputs, targets[rows]) - 4 * (soft * told).sum(1).mean()) / 2
    assert float(loss(outputs, rows)) == pytest.approx(float(expected))

    values = torch.randn(4)
    loss = tasks.distilled("regression", tasks.loss("regression", targets.float(), 5.0), teacher[:, 0], 5.0)
    expected = (((values - targets[rows]) ** 2).mean() + ((values - teacher[rows, 0]) ** 2).mean()) / 10
    assert float(loss(values, rows)) == pytest.approx(float(expected))


def test_a_student_learns_what_its_teacher_knows_and_its_labels_do_not_tell(made):
    """With labels by chance, only the teacher can have taught it."""
    chance = np.random.default_rng(0).permutation(made.train.targets)
    rows = type(made.train)(made.train.features, chance)
    student = optimise._student(made.manifest, made.network, rows, made.held_out)
    with torch.inference_mode():
        answers = student(torch.from_numpy(made.held_out.features)).argmax(1).numpy()
    assert (answers == made.held_out.targets).mean() > 0.6
